/** Signal numbers of Linux on x86-64, as image configurations name them (OCI image-spec config.md, StopSignal). */
const NAMES = [
  'HUP',
  'INT',
  'QUIT',
  'ILL',
  'TRAP',
  'ABRT',
  'BUS',
  'FPE',
  'KILL',
  'USR1',
  'SEGV',
  'USR2',
  'PIPE',
  'ALRM',
  'TERM',
  'STKFLT',
  'CHLD',
  'CONT',
  'STOP',
  'TSTP',
  'TTIN',
  'TTOU',
  'URG',
  'XCPU',
  'XFSZ',
  'VTALRM',
  'PROF',
  'WINCH',
  'IO',
  'PWR',
  'SYS',
]

export const SIGKILL = 9
export const SIGTERM = 15
const RTMIN = 34
const RTMAX = 64

/** "SIGQUIT", "QUIT", "3" or "SIGRTMIN+3"; SIGTERM for anything else, as containerd does for an empty name. */
export function stopSignal(name: string): number {
  const bare = name.toUpperCase().replace(/^SIG/, '')
  if (/^[0-9]{1,2}$/.test(bare)) return inRange(Number(bare))
  const realTime = /^RT(MIN|MAX)([+-][0-9]{1,2})?$/.exec(bare)
  if (realTime !== null) return inRange((realTime[1] === 'MIN' ? RTMIN : RTMAX) + Number(realTime[2] ?? 0))
  const index = NAMES.indexOf(bare)
  return index < 0 ? SIGTERM : index + 1
}

function inRange(signal: number): number {
  return signal >= 1 && signal <= RTMAX ? signal : SIGTERM
}
