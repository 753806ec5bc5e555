import { mountWorld } from "./world.js";

// The page of `video-gen play`: one world, and nothing around it.
mountWorld(document.querySelector("main"), `/play${location.search}`, new AbortController().signal);
