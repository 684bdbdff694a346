/** Streams between host programs and a real guest kernel, through `caisson-pod` and QEMU. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import anyTest, { type TestFn } from 'ava'
import { DEAF, ECHO, HALF_CLOSE, SINK, SOURCE, startVm, type TestVm } from './machine.ts'
import { cpuTicks, memoryKib, until } from './pod.ts'
import { digest, echoDigest, listenForGuest, NotConnectedError, readAll, readLine } from './stream.ts'

const ECONNRESET = 104
const STREAMS = 400
const STREAM_BYTES = 60_000

const test = anyTest as TestFn<{ vm: TestVm }>
const teardowns: (() => unknown)[] = []
let vm: TestVm

test.before(async () => {
  vm = await startVm({ teardown: (hook) => teardowns.unshift(hook) }, { holdMs: 20_000 })
})

test.after.always(async () => {
  for (const hook of teardowns) await hook()
})

test.serial('a stream carries bytes both ways unchanged', async (t) => {
  const bytes = randomBytes(3_000_000)
  t.is(await echoDigest(await vm.dial(ECHO), bytes), digest(bytes))
})

test.serial('bytes sent together with the CONNECT line belong to the stream', async (t) => {
  const socket = await vm.dial(ECHO)
  socket.end('at once')
  t.is((await readAll(socket)).toString(), 'at once')
})

test.serial('400 streams at once, dialled by the host, carry their own bytes', async (t) => {
  const results = await Promise.all(
    Array.from({ length: STREAMS }, async () => {
      const bytes = randomBytes(STREAM_BYTES)
      return (await echoDigest(await vm.dial(ECHO), bytes)) === digest(bytes)
    }),
  )
  t.is(results.filter((same) => same).length, STREAMS)
})

test.serial('400 streams at once, dialled by the guest, carry their own bytes', async (t) => {
  const results: Promise<boolean>[] = []
  const all = Promise.withResolvers<void>()
  const server = await listenForGuest(vm.pod.vsockPath, 5000, (socket) => {
    const bytes = randomBytes(STREAM_BYTES)
    results.push(echoDigest(socket, bytes).then((back) => back === digest(bytes)))
    if (results.length === STREAMS) all.resolve()
  })
  t.teardown(() => server.close())

  t.is(await vm.control(`dial 2 5000 ${STREAMS}`), `ok ${STREAMS}`)
  await all.promise
  t.is((await Promise.all(results)).filter((same) => same).length, STREAMS)
})

test.serial('the host may end its direction and still read the answer', async (t) => {
  const socket = await vm.dial(SINK)
  socket.end(Buffer.alloc(1_000_000))
  t.is((await readAll(socket)).readBigUInt64LE(), 1_000_000n)
})

test.serial('the guest may end its direction and still read', async (t) => {
  const socket = await vm.dial(HALF_CLOSE)
  t.is((await readAll(socket)).toString(), 'bye')
  socket.end(Buffer.alloc(700_000))
  await once(socket, 'close')
  for (let answer = await vm.control('left'); answer !== 'ok 700000'; answer = await vm.control('left')) {
    t.is(answer, 'ok 0')
  }
})

test.serial('a reader that stops stops the guest, and gets everything when it goes on', async (t) => {
  const socket = await vm.dial(SOURCE)
  const bytes = 8_000_000
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(bytes))
  socket.write(length)
  await once(socket, 'readable')
  const pid = vm.pod.process.pid ?? 0
  t.true(memoryKib(pid, 'RssAnon') < 4096, `${memoryKib(pid, 'RssAnon')} KiB held for a reader that does not read`)

  const received = await readAll(socket)
  t.is(received.length, bytes)
  const expected = Buffer.from(Uint8Array.from({ length: bytes }, (_, index) => index * 7 + (index >> 8)))
  t.true(received.equals(expected))
})

test.serial('a guest that does not read stops the writer', async (t) => {
  const socket = await vm.dial(DEAF)
  t.teardown(() => socket.destroy())
  let written = 0
  const write = () => {
    while (socket.write(Buffer.alloc(65_536), () => (written += 65_536)));
  }
  socket.on('drain', write)
  write()
  // The guest grants 256 KiB; the rest stays in socket buffers and in this process.
  t.is(await echoDigest(await vm.dial(ECHO), Buffer.alloc(500_000)), digest(Buffer.alloc(500_000)))
  t.true(written < 2_000_000, `${written} bytes went to a guest that does not read`)
})

test.serial('a port of the guest where nobody listens closes the socket without text', async (t) => {
  await t.throwsAsync(vm.dial(4711), { instanceOf: NotConnectedError })
})

test.serial('a host port where nobody listens, and another CID, refuse the guest at once', async (t) => {
  t.is(await vm.control('dial 2 6000 1'), `errno ${ECONNRESET}`)
  t.is(await vm.control('dial 7 6000 1'), `errno ${ECONNRESET}`)
})

test.serial('a host program that leaves in the middle leaves nothing stuck', async (t) => {
  const leavers = await Promise.all(Array.from({ length: 50 }, () => vm.dial(SOURCE)))
  for (const socket of leavers) socket.write(Buffer.from([0, 0, 0, 0, 1, 0, 0, 0]))
  await Promise.all(leavers.map((socket) => once(socket, 'readable')))
  for (const socket of leavers) socket.destroy()
  t.is(await echoDigest(await vm.dial(ECHO), Buffer.from('fine')), digest(Buffer.from('fine')))
})

test.serial('lines that are no CONNECT close the socket', async (t) => {
  const { connect } = await import('node:net')
  const lines = ['\n', 'CONNECT\n', 'CONNECT x\n', 'CONNECT 4294967295\n', 'CONNECT -1\n', 'GET / HTTP/1.1\r\n\r\n']
  for (const line of [...lines, 'C'.repeat(40)]) {
    const socket: Socket = connect(vm.pod.vsockPath)
    socket.write(line)
    t.is(await readLine(socket), undefined, JSON.stringify(line))
    socket.destroy()
  }
  const socket = connect(vm.pod.vsockPath)
  socket.write(`connect  ${ECHO} \nx`)
  t.regex((await readLine(socket)) ?? '', /^OK \d+$/)
  socket.destroy()
})

test.serial('a pause keeps streams, and holds those that dial meanwhile', async (t) => {
  const idle = await vm.dial(ECHO)
  const busy = echoDigest(await vm.dial(ECHO), Buffer.alloc(20_000_000, 'x'))
  await vm.qmp('stop')
  const held = vm.dial(ECHO)
  idle.write('written while paused\n')
  await vm.qmp('cont')

  t.true((await vm.pod.event('guest-connected', 2)).resumed)
  t.is(await readLine(idle), 'written while paused')
  idle.destroy()
  t.is(await busy, digest(Buffer.alloc(20_000_000, 'x')))
  t.is(await echoDigest(await held, Buffer.from('held')), digest(Buffer.from('held')))
})

test.serial('without traffic the process uses no processor time and little memory', async (t) => {
  const pid = vm.pod.process.pid ?? 0
  const startMs = performance.now()
  const before = cpuTicks(pid)
  await until(() => performance.now() - startMs > 1000, 'a second passes')
  t.is(cpuTicks(pid), before)
  t.true(memoryKib(pid, 'RssAnon') <= 1024, `${memoryKib(pid, 'RssAnon')} KiB`)
})
