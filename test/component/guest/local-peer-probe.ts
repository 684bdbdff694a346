/** Runs in a process namespace of its own (`unshare --pid`): sees every process there is, as the agent does in its guest. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { localPeer } from '#guest/platform/node/local-peer'

const CLIENT = `
const socket = require('node:net').connect(Number(process.argv[1]), process.argv[2])
socket.on('connect', () => console.log(socket.localPort))
`
const HOLDER = 'console.log(0); setInterval(() => undefined, 1000)'

const server = createServer(() => undefined).listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address() as AddressInfo
const told: Record<string, unknown> = { own: /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '' }

/** What the child prints first. */
async function start(args: readonly string[], inherited: readonly number[] = []): Promise<[ChildProcess, number]> {
  const child = spawn(process.execPath, ['-e', ...args], { stdio: ['ignore', 'pipe', 'inherit', ...inherited] })
  const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer]
  return [child, Number(line.toString())]
}

for (const host of ['127.0.0.1', '::ffff:127.0.0.1']) {
  const [child, from] = await start([CLIENT, String(port), host])
  told[host] = await localPeer(port, from)
  child.kill('SIGKILL')
  await once(child, 'exit')
  told[`${host}, ended`] = await localPeer(port, from)
}

const socket = connect(port, '127.0.0.1')
await once(socket, 'connect')
const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
const [holder] = await start([HOLDER], [fd])
told.both = await localPeer(port, socket.localPort ?? 0)
holder.kill('SIGKILL')
process.stdout.write(JSON.stringify(told), () => process.exit(0))
