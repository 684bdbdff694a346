/** `npm run quickstart` as a user runs it, and what it leaves behind. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'

const ROOT = new URL('../..', import.meta.url).pathname

function processes(): readonly string[] {
  return execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => /qemu-system|swtpm|caisson-pod|docker-registry|verifier serve/.test(line))
}

test('the quickstart ends with a page served by an attested guest, and leaves only its state directory', (t) => {
  const state = mkdtempSync(join(tmpdir(), 'caisson-qs-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const before = { processes: processes(), mounts: readFileSync('/proc/mounts', 'utf8'), tmp: readdirSync(tmpdir()) }
  const result = spawnSync(process.execPath, ['tools/quickstart/main.ts'], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, XDG_STATE_HOME: state },
  })
  t.log(result.stdout)
  t.is(result.status, 0, result.stderr)
  for (const shown of [
    /PCR 0 +[0-9a-f]{64}/,
    /PCR 9 +[0-9a-f]{64}/,
    /layer +\S+tar\+gzip/,
    /layer +\S+tar\+zstd/,
    /ms {2}attested/,
    /image measured, second token/,
    /GET https:\/\/\S+ -> 200/,
    /exec +nginx -t: exit 0, .*test is successful/,
    /exit code +0/,
    /host can still read guest memory/,
  ]) {
    t.regex(result.stdout, shown)
  }
  t.deepEqual(
    processes().filter((line) => !before.processes.includes(line)),
    [],
  )
  t.is(readFileSync('/proc/mounts', 'utf8'), before.mounts)
  t.deepEqual(
    readdirSync(tmpdir()).filter((name) => !before.tmp.includes(name) && /caisson|swtpm|qemu/.test(name)),
    [],
  )
  t.deepEqual(readdirSync(join(state, 'caisson')), ['quickstart'])
})
