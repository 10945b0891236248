"""A server around one `Synthesizer`: OpenAI's speech endpoint, a WebSocket, Wyoming.

One request's way: `http_speech` reads it, `speech` checks it and opens a `job`, `engine_room` has
it computed by one of its threads block by block, `encoding` makes bytes of the blocks, and the
connection sends them as they come. Needs the extra `serve`.
"""
