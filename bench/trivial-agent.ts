/** The peer of the agent's start: the same guest, whose Node does nothing but say that it runs, then stays. */
import { openSync, writeSync } from 'node:fs'

writeSync(openSync('/dev/console', 'w'), 'caisson: agent-ready\n')
setInterval(() => {}, 3_600_000)
