"""The studio: pages for everything that the command line does, on its functions. No torch in the server's process.

How a page is added, say `runs`:

1. `static/pages/runs.js` exports `mount(place, signal)`: it draws into the element `place`; what it listens to ends with the
   `AbortSignal`. `static/pages/runs.css`, if it is there, becomes a part of the one style sheet.
   The page then stands in the navigation (`app.PAGES`).
2. `runs.py` has `routes(studio) -> APIRouter`, whose addresses begin with /api/runs, and is named in `app.ROUTES`. Bodies are read
   with `answers.said`, against a `Config`; a `VideoGenError` becomes an answer with one line; nothing is changed by a GET.
3. Files are found through `Roots`, which hands out nothing beyond the folders named at the start. What may crash or takes long on
   somebody else's file goes through `studio.apart`; a model lives in a `Process` of its own.
4. What changes by itself is told through `studio.hub`, by topic;
   a page hears it with `hear(topic, then, signal)` of `lib/events.js`.
"""
