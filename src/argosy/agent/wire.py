"""The wire between server and agent: constants and framing, usable on both sides.

Transport: HTTP/1.1 with keep-alive on the agent's unix socket. Bodies are JSON with a Content-Length; facts
have the field names of `argosy.model.facts`. Paths below `PREFIX`:

    GET  /node                                            -> NodeFacts
    POST /prepare         {"orders": [RankOrder, ...]}    -> {}
    POST /run | /forget   {"ids": [...]}                  -> {}
    POST /listening       {"ids": [...]}                  -> {"ports": [...]} on which these ranks listen
    POST /stop            {"ids": [...], "grace_s": 10, "why"} -> {}; `why` goes into a file of the rank's
    POST /chunks/missing  {"digests": [...]}              -> {"missing": [...]}
    PUT  /chunks          a pack: per chunk one line `<hex sha256> <size>\\n`, then its bytes -> {}
    POST /tree            {"target": "~/x", "tree": Tree, "digest": of the tree} -> {}
    PUT  /tree            a line {"order": size}, the order of POST /tree with {"token", "lanes": n, "size"},
                          and a pack of so many bytes: of the chunks that are missing, in the order in which
                          files by their paths need them -> {}
    PUT  /tree/lane       a line {"order": size}, {"token", "lane": from 1 on}, and of that pack every n-th
                          block of `LANE_BLOCK_BYTES`, as that number says -> {}; the first one, number 0,
                          follows the order itself
    POST /tree/held       {"target", "digest"}            -> {"held": whether just that tree lies there,
                                                              "lying": which one does that can be changed,
                                                              "takes": PUT /tree is known, "bare": it has no
                                                              chunk of anything}
    POST /tree/ahead      {"target"}                      -> {}; a change of what lies there may follow
    PUT  /tree/change     a line {"order": size}, {"target", "since", "digest", "entries", "removed",
                          "folders"} and a pack of chunks -> {"changed": false: another tree lies there}
    POST /kept            {"target", "settled_s"}         -> {"entries": of a tree, "unsettled": [path, ...]}
    POST /kept/chunks     {"digests": [...]}              -> 101, then per chunk one line `<digest> <size>\\n`
                                                             and its bytes; size -1: it is not there any more
    POST /mount           {"target", "path", "settings", "options", "cached", "read_only"} -> {}
    POST /settle          {"targets", "patience_s", "unmount"} -> {"left": {target: [path, ...]}}
    POST /shutdown        {"grace_s": 5}                  -> {} when every rank has ended
    POST /watch           {"cursors": {rank id: offset}}  -> 101, then report frames
    POST /shell           {"command", "rows", "columns", "env"} -> 101, then terminal frames both ways
    POST /forward         {"port": 8888}                  -> 101, then the connection's bytes both ways
    POST /ssh             {"key": a public key}           -> 101, a line {"host_key"}, then ssh both ways
    POST /copy            {"path", "name", "read"}        -> 101, then a tar stream (`copying`)
    POST /fetch | /send   {}                              -> 101, then lines of JSON (`fetch`, `send`)

A failure is `{"error": refused | transient | busy, "field": ..., "text": ...}` with a 4xx or 5xx status.

A report frame is `FRAME` (length of head, length of body), a JSON head
`{"complete", "ranks", "logs": [[rank id, offset, size], ...], "node", "sent", "wall", "beat"}` and the log
bytes in the order of `logs`. `sent` is the agent's own clock in ms, which never goes back; `wall` is the wall
clock of its node, by which all other times are; `beat` is how often it says something at least, in seconds.
The reader of a watch may answer a report by a line of JSON,
`{"sent": of that report, "beat": from now on, "leases": [attempt id, ...]}`, which gives ranks of these
attempts that have a lease their whole time again, from `sent` on; an older agent takes no notice of it.
A terminal frame is `TERMINAL` (kind, length) and its payload.
"""

from __future__ import annotations

import struct

VERSION = 1  # of this wire; in every path
PREFIX = "/v1"
UPGRADE = "argosy"

DIAL_PATH = PREFIX + "/dial"  # of the server, where agents dial in ...
DIAL_UPGRADE = "argosy-dial"  # ... and become an `argosy.agent.mux`
DIAL_PING_S = 30.0
DIAL_SILENCE_S = 75.0  # either side gives the connection up

FRAME = struct.Struct(">II")
LOG_BATCH_BYTES = 1 << 20  # log bytes in one report, at most
HEARTBEAT_S = 5.0  # the agent says something at least this often, unless its reader asks for another pace
BEAT_MIN_S, BEAT_MAX_S = 0.2, 60.0
SILENCE_S = 15.0  # a reader that hears nothing for so long gives up
ACK_LIMIT_BYTES = 256 << 10  # of one line from the reader of a watch

TERMINAL = struct.Struct(">BI")
TERMINAL_DATA = 0
TERMINAL_RESIZE = 1  # payload: `SIZE`
TERMINAL_END = 2  # to the agent: hang up; from it: payload `EXIT_CODE`
TERMINAL_SEEN = 3  # to the agent: the reader has everything before the byte of this number; payload `SEEN`
SIZE = struct.Struct(">HH")  # rows, columns
SEEN = struct.Struct(">Q")
EXIT_CODE = struct.Struct(">i")

HEAD_LIMIT_BYTES = 64 << 10  # of a request's or reply's head
BODY_LIMIT_BYTES = 256 << 20  # of a JSON body: a tree of a million files fits
CHUNK_LIMIT_BYTES = 8 << 20  # as `argosy.model.tree.CHUNK_BYTES`
LANE_BLOCK_BYTES = 256 << 10
LANES_MAX = 4  # connections for one tree
PACK_LIMIT_BYTES = 64 << 20  # of one PUT /chunks


def lane_sizes(size: int, count: int) -> list[int]:
    """How many bytes of a tree's pack go through each of `count` connections.

    >>> lane_sizes(10, 2), lane_sizes(LANE_BLOCK_BYTES * 2 + 10, 2)
    ([10, 0], [262154, 262144])
    """
    blocks, rest = divmod(size, LANE_BLOCK_BYTES)
    sizes = [(blocks + count - 1 - number) // count * LANE_BLOCK_BYTES for number in range(count)]
    sizes[blocks % count] += rest
    return sizes
