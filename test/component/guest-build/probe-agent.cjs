// Stands in for the agent: tells what PID 1 left for it, as one JSON line, and ends as the initdata says.
const { spawn } = require('node:child_process')
const { existsSync, readdirSync, readFileSync, statSync, writeFileSync } = require('node:fs')

const INITDATA = '/run/caisson/initdata.toml'
const PCR = '/sys/class/tpm/tpm0/pcr-sha256/8'

writeFileSync('/dev/console', 'caisson: agent-ready\r\n')
const text = existsSync(INITDATA) ? readFileSync(INITDATA, 'utf8') : ''
const report = {
  initdata: text,
  mode: existsSync(INITDATA) ? (statSync(INITDATA).mode & 0o777).toString(8) : '',
  pcr8: existsSync(PCR) ? readFileSync(PCR, 'utf8').trim().toLowerCase() : '',
  environment: process.env,
  mounts: readFileSync('/proc/self/mounts', 'utf8').trim().split('\n'),
  coreLimit: /Max core file size +(\S+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1],
  kptrRestrict: readFileSync('/proc/sys/kernel/kptr_restrict', 'utf8').trim(),
  writable: ['/usr', '/etc', '/proc/sys/kernel'].filter((folder) => canWrite(`${folder}/x`)),
}
const done = () => {
  console.log(`probe ${JSON.stringify(report)}`)
  process.exit(Number(/exit (\d+)/.exec(text)?.[1] ?? 0))
}
if (text.includes('orphan')) orphan()
else done()

function canWrite(file) {
  try {
    writeFileSync(file, '')
    return true
  } catch {
    return false
  }
}

/** A grandchild whose parent is gone when it ends: PID 1 has to collect it. */
function orphan() {
  const parent = "require('child_process').spawn('/usr/bin/crun',['--version'],{detached:true,stdio:'ignore'}).unref()"
  spawn(process.execPath, ['-e', `${parent};process.stdout.write('spawned')`]).once('close', waitForNone)
}

function waitForNone() {
  const left = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isOrphan(name))
  if (left.length > 0) return setTimeout(waitForNone, 50)
  report.orphansLeft = 0
  done()
}

function isOrphan(pid) {
  try {
    const [, name, , parent] = /^\d+ \((.*)\) (\S) (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? []
    return parent === '1' && name === 'crun'
  } catch {
    return false
  }
}
