/** On nodes without a service manager shims start the daemon themselves. Here it is slow, or dies; no VM is booted. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import { DeleteResponseSchema } from '#host-shim/containerd/gen/task_pb'
import { findProcesses } from '#host-shim/pod/process-identity'
import { callShim } from './fixtures/shim.ts'

/** Many times what is needed, and less than the minute that a daemon may take. */
const SOON_MS = 30_000

interface Node {
  readonly root: string
  /** A daemon that runs and never listens. */
  readonly silent: readonly string[]
  /** Pids of what was started in place of a daemon, in order. */
  readonly started: () => readonly number[]
}

function node(t: ExecutionContext): Node {
  const root = mkdtempSync(join(tmpdir(), 'cw-'))
  const marks = join(root, 'started')
  const started = () => (existsSync(marks) ? readFileSync(marks, 'utf8').trim().split('\n').map(Number) : [])
  t.teardown(() => {
    for (const pid of started()) end(pid)
    rmSync(root, { recursive: true, force: true })
  })
  return { root, silent: ['/bin/sh', '-c', `echo $$ >> ${marks}; exec sleep 3600`], started }
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It is gone already.
  }
}

async function until(reached: () => boolean): Promise<void> {
  while (!reached()) await new Promise((resolve) => setTimeout(resolve, 20))
}

function listen(path: string, take: (socket: Socket) => void): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    take(socket)
  })
  return new Promise((resolve) => server.listen(path, () => resolve(server)))
}

test('delete answers containerd in time although the daemon that it started does not come', async (t) => {
  const { root, silent, started } = node(t)
  mkdirSync(join(root, 'n'))
  const before = Date.now()
  const deleted = await callShim(root, `slow-${process.pid}`, 'delete', silent)
  t.true(Date.now() - before < SOON_MS)
  t.is(deleted.code, 0)
  t.is(fromBinary(DeleteResponseSchema, deleted.stdout).exitStatus, 137)
  await until(() => started().length > 0)
  // Nobody starts a second one beside it.
  await callShim(root, `slow-${process.pid}`, 'delete', silent)
  t.is(started().length, 1)
})

test('output goes on while a relay waits for the daemon that it started', async (t) => {
  const { root, silent, started } = node(t)
  mkdirSync(join(root, 'n'))
  const id = `stdio-${process.pid}`
  const [guest, output] = [join(root, 'guest.sock'), join(root, 'output')]
  let stream: Socket | undefined
  let said = ''
  const control: Socket[] = []
  // This test is the daemon that goes away, and the guest that the relay carries bytes for.
  const inGuest = await listen(guest, (socket) => {
    socket.once('data', () => socket.write('OK 1025\nOK\n'))
    stream = socket
  })
  const daemon = await listen(join(root, 'n/node.sock'), (socket) => {
    let text = ''
    socket.on('data', (bytes) => {
      text += bytes.toString()
      if (text.startsWith('start\n') && text.includes('\n\n')) socket.end(`relay ${join(root, 's/pod.sock')}\n`)
      if (!text.startsWith('pod\n')) return
      said = text
      if (!control.includes(socket)) control.push(socket)
    })
  })
  t.is((await callShim(root, id, 'start', silent)).code, 0)
  t.teardown(async () => {
    for (const { pid } of await findProcesses(root, (words) => words.includes(id))) end(pid)
    stream?.destroy()
    inGuest.close()
  })
  await until(() => said.includes('\nready\n'))
  control[0]?.write(`open\tt1\t${guest}\tticket\t-\t${output}\n`)
  await until(() => said.includes('opened\tt1\n'))
  daemon.close()
  for (const socket of control) socket.destroy()
  await until(() => started().length > 0)
  const before = Date.now()
  stream?.write('written meanwhile')
  await until(() => readFileSync(output, 'utf8') === 'written meanwhile')
  t.true(Date.now() - before < SOON_MS)
})

test('a daemon that died is started again, whatever it left running', async (t) => {
  const { root, started } = node(t)
  mkdirSync(join(root, 'n'))
  const marks = join(root, 'started')
  const program = `
    const { appendFileSync } = require('node:fs')
    const left = require('node:child_process').spawn('sleep', ['3600'], { detached: true, stdio: 'ignore' })
    appendFileSync('${marks}.left', left.pid + '\\n')
    appendFileSync('${marks}', process.pid + '\\n')
    setInterval(() => {}, 1000)`.replaceAll('\n', ';')
  t.teardown(() => {
    for (const pid of readFileSync(`${marks}.left`, 'utf8').trim().split('\n')) end(Number(pid))
  })
  const ask = () => callShim(root, `died-${process.pid}`, 'delete', [process.execPath, '-e', program])
  await ask()
  await until(() => started().length > 0)
  end(started()[0] ?? 0)
  while (started().length < 2) await ask()
  t.is(started().length, 2)
})
