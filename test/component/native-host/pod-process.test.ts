/** `caisson-pod` as a parent and as a program, with small commands in place of a VMM. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { CAISSON_POD } from '#native/host/index'
import { isRunning, TestPod, until } from './pod.ts'

const shell = (script: string) => () => ['sh', '-c', script]

test('wrong arguments end with code 2 and say which', (t) => {
  const cases: [readonly string[], RegExp][] = [
    [[], /--state-dir is missing/],
    [['--state-dir', '/tmp'], /command is missing/],
    [['--state-dir'], /--state-dir needs a value/],
    [['--state-dir', '', '--', 'true'], /bad value for --state-dir/],
    [['--wrong', '1', '--', 'true'], /unknown option --wrong/],
    [['--state-dir', '/tmp', '--cid', '2', '--', 'true'], /bad value for --cid: "2"/],
    [['--state-dir', '/tmp', '--cid', '4294967295', '--', 'true'], /bad value for --cid/],
    [['--state-dir', '/tmp', '--grace-ms', '1x', '--', 'true'], /bad value for --grace-ms/],
    [['--state-dir', `/tmp/${'x'.repeat(100)}`, '--', 'true'], /socket path longer than 96 bytes/],
  ]
  for (const [args, problem] of cases) {
    const { status, stderr } = spawnSync(CAISSON_POD, args, { encoding: 'utf8' })
    t.is(status, 2, args.join(' '))
    t.regex(stderr, problem)
    t.regex(stderr, /^usage: caisson-pod/m)
  }
})

test('a command that cannot run ends with code 3 and says why', async (t) => {
  const pod = new TestPod(t, () => ['/nonexistent/vmm'])
  t.deepEqual(await pod.exit, { code: 3, signal: null })
  t.regex(pod.stderr, /cannot run \/nonexistent\/vmm: No such file or directory/)
})

test("the VMM's end is the process's end, with its code and its output in the log", async (t) => {
  const pod = new TestPod(t, shell('echo from the VMM; echo and its error >&2; exit 7'))
  t.deepEqual(await pod.exit, { code: 1, signal: null })
  t.deepEqual(pod.events.at(-1), { event: 'vm-exit', code: 7 })
  t.is(pod.log(), 'from the VMM\nand its error\n')
})

test('the VMM starts without standard input, cores or new privileges, in a group of its own', async (t) => {
  const script =
    'readlink /proc/self/fd/0; ulimit -c; grep NoNewPrivs /proc/self/status; echo group $(cut -d" " -f5 /proc/$$/stat) $$; umask'
  const pod = new TestPod(t, shell(script))
  await pod.exit
  const [input, core, privileges, group, mask] = pod.log().split('\n')
  t.is(input, '/dev/null')
  t.is(core, '0')
  t.is(privileges, 'NoNewPrivs:\t1')
  const [, id, pid] = group?.split(' ') ?? []
  t.is(id, pid)
  t.is(mask, '0077')
})

test('SIGTERM ends the VMM', async (t) => {
  const pod = new TestPod(t, shell('exec sleep 600'))
  await pod.event('vm-started')
  pod.process.kill('SIGTERM')
  t.deepEqual(await pod.event('vm-exit'), { event: 'vm-exit', signal: 15 })
  t.deepEqual(await pod.exit, { code: 1, signal: null })
})

test('signals of a terminal are left to the owner', async (t) => {
  const pod = new TestPod(
    t,
    shell('grep SigIgn /proc/$PPID/status /proc/self/status; kill -INT $PPID; kill -HUP $PPID'),
  )
  t.deepEqual(await pod.exit, { code: 0, signal: null })
  const [ours, theirs] = pod
    .log()
    .trimEnd()
    .split('\n')
    .map((line) => BigInt(`0x${line.split('\t')[1]}`))
  const hangupAndInterrupt = 0b11n
  t.is((ours ?? 0n) & hangupAndInterrupt, hangupAndInterrupt)
  t.is((theirs ?? 0n) & hangupAndInterrupt, 0n)
})

test('a VMM that ignores SIGTERM is killed after the grace time, with its whole group', async (t) => {
  const pod = new TestPod(t, shell('trap "" TERM; sleep 600 & echo $!; wait'), ['--grace-ms', '100'])
  await until(() => pod.log().endsWith('\n'), 'the helper starts')
  const helper = Number(pod.log())
  pod.process.stdin.end()
  t.deepEqual(await pod.event('vm-exit'), { event: 'vm-exit', signal: 9 })
  await until(() => !isRunning(helper), 'the helper ends')
  t.pass()
})

test('what the VMM leaves behind in its group ends with it', async (t) => {
  const pod = new TestPod(t, shell('sleep 600 & echo $!'))
  await pod.exit
  await until(() => !isRunning(Number(pod.log())), 'the helper ends')
  t.pass()
})

test('sockets are for the owner alone and are gone afterwards', async (t) => {
  const pod = new TestPod(t, shell('exec sleep 600'))
  await pod.event('vm-started')
  for (const name of ['vsock.sock', 'vhost.sock']) t.is(statSync(join(pod.dir, name)).mode & 0o777, 0o600)
  pod.process.stdin.end()
  await pod.exit
  for (const name of ['vsock.sock', 'vhost.sock']) t.throws(() => statSync(join(pod.dir, name)), { code: 'ENOENT' })
})

test('a socket left by a process that was killed is replaced; one in use, or a file, is not', async (t) => {
  const first = new TestPod(t, shell('exec sleep 600'))
  await first.event('vm-started')
  const vsock = ['--vsock', first.vsockPath]

  const second = new TestPod(t, shell('exit 0'), vsock)
  t.deepEqual(await second.exit, { code: 3, signal: null })
  t.regex(second.stderr, /cannot listen on .*Address already in use/)

  first.process.kill('SIGKILL')
  await once(first.process, 'exit')
  const third = new TestPod(t, shell('exit 0'), vsock)
  t.deepEqual(await third.exit, { code: 0, signal: null })

  writeFileSync(first.vsockPath, 'precious')
  const fourth = new TestPod(t, shell('exit 0'), vsock)
  t.deepEqual(await fourth.exit, { code: 3, signal: null })
  t.is(statSync(first.vsockPath).size, 8)
})

test('a client that dials before there is a guest is closed at once by default', async (t) => {
  const pod = new TestPod(t, shell('exec sleep 600'))
  await pod.event('listening')
  const socket = connect(pod.vsockPath).resume()
  socket.write('CONNECT 1024\n')
  await once(socket, 'end')
  t.pass()
})

test('with a hold time 64 clients may wait, for that time', async (t) => {
  const pod = new TestPod(t, shell('exec sleep 600'), ['--connect-hold-ms', '600'])
  await pod.event('listening')
  const startMs = performance.now()
  const waits = await Promise.all(
    Array.from({ length: 70 }, async () => {
      const socket = connect(pod.vsockPath).resume()
      socket.write('CONNECT 1024\n')
      await once(socket, 'end')
      return performance.now() - startMs
    }),
  )
  t.is(waits.filter((ms) => ms >= 590).length, 64)
})

test('a client that gives up waiting makes room for another', async (t) => {
  const pod = new TestPod(t, shell('exec sleep 600'), ['--connect-hold-ms', '60000'])
  await pod.event('listening')
  const hold = async () => {
    const socket = connect(pod.vsockPath)
    await once(socket, 'connect')
    socket.write('CONNECT 1024\n')
    return socket
  }
  const held = await Promise.all(Array.from({ length: 64 }, hold))
  const refused = (await hold()).resume()
  await once(refused, 'end')
  for (const socket of held) socket.destroy()
  await until(() => isHeldOpenBy(pod, 0), 'all have left')
  const later = await hold()
  t.teardown(() => later.destroy())
  await until(() => isHeldOpenBy(pod, 1), 'the next one waits')
  t.pass()
})

/** Whether the process has this many clients, by its descriptors: a process without clients is the measure. */
function isHeldOpenBy(pod: TestPod, clients: number): boolean {
  const { stdout } = spawnSync('sh', ['-c', `ls -l /proc/${pod.process.pid}/fd | grep -c socket:`], {
    encoding: 'utf8',
  })
  return Number(stdout) === LISTENERS_AND_STDIO + clients
}
const LISTENERS_AND_STDIO = 2 + 3

test('neither the process nor the VMM leaves a core dump, however high the limit was', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-core-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const crash = (...command: string[]) =>
    spawnSync('prlimit', ['--core=unlimited:unlimited', ...command], { cwd: folder })
  const pod = (script: string) => [CAISSON_POD, '--state-dir', folder, '--', 'sh', '-c', script]
  crash(...pod('echo crashed; kill -SEGV $$'))
  crash(...pod('kill -SEGV $PPID; sleep 600'))
  t.deepEqual(cores(folder), [])
  crash('sh', '-c', 'kill -SEGV $$')
  if (!/^[|/]/.test(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'))) {
    t.is(cores(folder).length, 1, 'others do, on this machine')
  }
})

function cores(folder: string): readonly string[] {
  return readdirSync(folder).filter((name) => name.startsWith('core'))
}
