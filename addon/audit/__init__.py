"""
The audit log: one stream of hash-chained JSON lines per worker, in `$ALTER_HOME/audit/`.

    entry       one line: what it may hold, how it is chained to the line before
    segments    the files of the streams, and their lines, forward and backward
    chain       checking: the end of a stream, all streams, noted heads
    stream      one worker's stream: claim, recover, append, go on in the next segment
    writer      many requests, one write, one fsync
    reader      records, filtered, by time; and as they come
    export      jsonl, csv, ocsf, cef

What the chain proves. Any edit, removal, insertion, reordering or exchange of lines, segments or streams is found by
`chain.verify`. Two things are not, by files alone: lines cut off at the end of a stream (or all of it), and a tail
rewritten from some line on with every hash computed anew, since the hash has no key. Whoever notes `chain.heads`
somewhere else finds both, by giving them back to `chain.verify`.
"""
