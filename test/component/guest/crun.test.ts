/** crun with the wiring around it, as the agent uses it in the guest; here without control groups. */
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ContainerProcess } from '#guest/agent/container-process'
import { seccompProfile } from '#guest/agent/seccomp'
import { nodeFiles } from '#guest/platform/node/files'
import { Crun } from '#guest/platform/node/oci-runtime'
import { nodeProcesses } from '#guest/platform/node/processes'
import { SYSTEM_CALLS } from '#policies/seccomp-rule'
import { shellLayers } from './shell-image.ts'

const SIGTERM = 15
const SIGKILL = 9

async function setUp(t: ExecutionContext) {
  const folder = await mkdtemp(join(tmpdir(), 'cr-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const rootfs = join(folder, 'rootfs')
  for (const { path, type, content, mode } of shellLayers().flatMap((layer) => layer.entries)) {
    const target = join(rootfs, path)
    await mkdir(type === 'directory' ? target : dirname(target), { recursive: true })
    if (type === 'file') await writeFile(target, content ?? '')
    await chmod(target, mode)
  }
  // The guest has control groups version 2 alone; a machine that mixes versions is shown to crun as if it had, too.
  const path = join(folder, 'crun')
  const script = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec crun "$@"'
  await writeFile(path, `#!/bin/sh\nexec unshare --mount /bin/sh -c '${script}' crun "$@"\n`, { mode: 0o755 })
  const stateDir = join(folder, 's')
  const crun = new Crun({ files: nodeFiles, processes: nodeProcesses, path, stateDir, cgroupManager: 'disabled' })
  const process = (args: readonly string[], terminal = false) => ({
    terminal,
    user: { uid: 0, gid: 0 },
    args,
    env: ['PATH=/bin', 'TERM=xterm'],
    cwd: '/',
    noNewPrivileges: true,
  })
  const bundle = async (args: readonly string[], terminal = false, seccomp?: object) => {
    const path = await mkdtemp(join(folder, 'b-'))
    const spec = {
      ociVersion: '1.0.2',
      process: process(args, terminal),
      root: { path: rootfs },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
        { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
      ],
      linux: { namespaces: ['pid', 'ipc', 'mount'].map((type) => ({ type })), ...(seccomp && { seccomp }) },
    }
    await writeFile(join(path, 'config.json'), JSON.stringify(spec))
    return path
  }
  const create = async (
    id: string,
    args: readonly string[],
    options: { terminal?: boolean; stdin?: boolean; seccomp?: object } = {},
  ) => {
    const { terminal = false, stdin = false, seccomp } = options
    t.teardown(() => crun.delete(id))
    return crun.create(id, await bundle(args, terminal, seccomp), { terminal, stdin })
  }
  return { crun, create, process, stateDir }
}

async function text(stream: { read(): Promise<Uint8Array | null> } | undefined): Promise<string> {
  const chunks: Uint8Array[] = []
  if (stream === undefined) return ''
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

test.serial('a container writes to its own streams, and its exit code is its first process’s', async (t) => {
  const { crun, create, stateDir } = await setUp(t)
  const running = await create('out', ['/bin/sh', '-c', 'echo out; echo err >&2; exit 7'])
  await crun.start('out')
  t.is(await text(running.io.stdout), 'out\n')
  t.is(await text(running.io.stderr), 'err\n')
  t.is((await running.exited).code, 7)
  t.false(running.signal(SIGTERM))
  await crun.delete('out')
  await t.notThrowsAsync(crun.delete('out'))
  t.deepEqual(
    (await readdir(stateDir)).filter((name) => name !== 'state'),
    [],
  )
})

test.serial('a process is killed by a signal, and the code says which', async (t) => {
  const { crun, create } = await setUp(t)
  const running = await create('kill', ['/bin/sleep', '600'])
  await crun.start('kill')
  t.true(running.signal(SIGKILL))
  t.is((await running.exited).code, 128 + SIGKILL)
})

test.serial('input reaches the process until it ends', async (t) => {
  const { crun, create } = await setUp(t)
  const running = await create('cat', ['/bin/cat'], { stdin: true })
  await crun.start('cat')
  await running.io.stdin?.write(Buffer.from('hello'))
  await running.io.stdin?.end()
  t.is(await text(running.io.stdout), 'hello')
  t.is((await running.exited).code, 0)
})

test.serial('a terminal has the size it was given, and ends with its process', async (t) => {
  const { crun, create } = await setUp(t)
  const running = await create('tty', ['/bin/sh', '-c', 'stty size; exit 4'], { terminal: true })
  running.io.resize(91, 33)
  await crun.start('tty')
  t.regex(await text(running.io.terminal), /33 91/)
  t.is((await running.exited).code, 4)
})

test.serial('further processes run in the container, with pipes or a terminal, and are reaped', async (t) => {
  const { crun, create, process } = await setUp(t)
  const first = await create('exec', ['/bin/sleep', '600'])
  await crun.start('exec')
  const plain = await crun.exec('exec', JSON.stringify(process(['/bin/sh', '-c', 'echo hi; exit 9'])), {
    terminal: false,
    stdin: false,
  })
  t.is(await text(plain.io.stdout), 'hi\n')
  t.is((await plain.exited).code, 9)
  const tracked = new ContainerProcess(
    await crun.exec('exec', JSON.stringify(process(['/bin/sh', '-c', 'stty size'], true)), {
      terminal: true,
      stdin: true,
    }),
    { stdin: true },
  )
  t.true(tracked.hasTerminal)
  t.is((await tracked.exited).code, 0)
  tracked.close()
  t.true(first.signal(SIGKILL))
  await first.exited
})

test.serial('a command that does not exist is an error of the runtime that names it', async (t) => {
  const { crun, create } = await setUp(t)
  const error = await t.throwsAsync(
    async () => {
      await create('missing', ['/bin/no-such-program'])
      await crun.start('missing')
    },
    { code: 'ERR_RUNTIME' },
  )
  t.regex(error?.message ?? '', /no-such-program/)
})

test.serial('the kernel takes the filter of each rule for system calls, and refuses what it takes away', async (t) => {
  const { crun, create } = await setUp(t)
  const every = [...SYSTEM_CALLS]
  const profiles = {
    guest: seccompProfile([]),
    runtime: seccompProfile([], { kind: 'runtime-default' }),
    // Of all that there are, so that no name stands in the way of the filter.
    deny: seccompProfile([], {
      kind: 'deny',
      names: every.filter((name) => /^(mkdir|mkdirat|socket|clone3)$/.test(name)),
    }),
    allow: seccompProfile([], { kind: 'allow', names: every.filter((name) => !/^mkdir(at)?$/.test(name)) }),
  }
  const outcome = async (name: keyof typeof profiles) => {
    const args = [
      '/bin/sh',
      '-c',
      'mkdir /dev/made 2>&1 && echo made; /bin/unshare -m /bin/true 2>&1 && echo unshared' +
        '; setarch linux32 /bin/true && echo other machine; setarch -R /bin/true && echo same addresses',
    ]
    const running = await create(name, args, { seccomp: profiles[name] })
    await crun.start(name)
    return await text(running.io.stdout)
  }
  t.regex(await outcome('guest'), /^made\n.*not permitted\nother machine\nsame addresses$/im)
  t.regex(await outcome('runtime'), /^made\n.*not permitted\nother machine\n$/im)
  for (const narrow of ['deny', 'allow'] as const) {
    const said = await outcome(narrow)
    t.regex(said, /mkdir.*not permitted/i, narrow)
    t.notRegex(said, /made$|unshared/m)
  }
})
