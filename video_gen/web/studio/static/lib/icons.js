import { svg } from "./dom.js";

// Drawn on 24 by 24 with one pen.
const PATHS = {
  create: "M12 3v4M12 17v4M3 12h4M17 12h4M6.300 6.300l2.200 2.200M15.500 15.500l2.200 2.200M6.300 17.700l2.200-2.200M15.500 8.500l2.200-2.200",
  live: "M12 12h.01M8.500 15.500a5 5 0 0 1 0-7M15.500 8.500a5 5 0 0 1 0 7M5.600 18.400a9 9 0 0 1 0-12.800M18.400 5.600a9 9 0 0 1 0 12.800",
  play: "M7 8h10a4 4 0 0 1 4 4v1a3.500 3.500 0 0 1-6.500 1.500h-5A3.500 3.500 0 0 1 3 13v-1a4 4 0 0 1 4-4ZM8 10.500v3M6.500 12h3M16 12h.01",
  runs: "M3 20h18M4 16l4.500-6 4 3.500L20 5",
  data: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  models: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM4 7.500l8 4.500 8-4.500M12 12v9",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M4.900 4.900l1.400 1.400M17.700 17.700l1.400 1.400M2 12h2M20 12h2M4.900 19.100l1.400-1.400M17.700 6.300l1.400-1.400",
  moon: "M20 14.500A8 8 0 0 1 9.500 4a8 8 0 1 0 10.500 10.500z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  start: "M7 5l11 7-11 7z", pause: "M8 5v14M16 5v14", stop: "M7 7h10v10H7z",
  trash: "M4 7h16M9 7V4h6v3M6.500 7l1 13h9l1-13M10 11v5M14 11v5",
  download: "M12 4v11M7.500 11l4.500 4.500 4.500-4.500M5 20h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1", again: "M20 12a8 8 0 1 1-2.500-5.800M20 3v4h-4",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-2.500 4 3.500M15.500 9.500h.01", video: "M4 6h11v12H4zM15 10.500l5-3v9l-5-3",
  compare: "M12 4v16M4 6h5v12H4zM15 6h5v12h-5", close: "M6 6l12 12M18 6L6 18", search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.500 4.500",
  more: "M5 12h.01M12 12h.01M19 12h.01", check: "M5 12.500l4.500 4.500L19 7.500", down: "M6 9.500l6 6 6-6", dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01",
  left: "M14.500 6l-6 6 6 6", right: "M9.500 6l6 6-6 6", record: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10z", folder: "M3 6h6l2 2.500h10V19H3z",
};

export const icon = (name) => svg("svg", { viewBox: "0 0 24 24", class: "glyph", "aria-hidden": "true", focusable: "false" }, svg("path", { d: PATHS[name] }));
