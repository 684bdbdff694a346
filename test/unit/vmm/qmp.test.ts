import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { QmpClient, type QmpEvent } from '#vmm/qemu/qmp'

const GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n'

/** A socket pair; the far end is QEMU's. */
async function pair(t: ExecutionContext): Promise<{ near: Socket; far: Socket }> {
  const directory = await mkdtemp(join(tmpdir(), 'qmp-'))
  const server = createServer().listen(join(directory, 's'))
  const far = connect(join(directory, 's'))
  const [near]: Socket[] = await once(server, 'connection')
  if (near === undefined) throw new Error('no connection')
  t.teardown(async () => {
    near.destroy()
    far.destroy()
    server.close()
    await rm(directory, { recursive: true })
  })
  return { near, far }
}

/** Answers each command with what `answer` says. */
function serve(far: Socket, answer: (command: string) => object | undefined): void {
  let text = ''
  far.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const { execute, id } = JSON.parse(text.slice(0, end))
      text = text.slice(end + 1)
      const reply = execute === 'qmp_capabilities' ? { return: {} } : answer(execute)
      if (reply !== undefined) far.write(`${JSON.stringify({ ...reply, id })}\r\n`)
    }
  })
  far.write(GREETING)
}

test('commands are answered by id, events arrive beside them', async (t) => {
  const { near, far } = await pair(t)
  const events: QmpEvent[] = []
  serve(far, () => {
    far.write('{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\r\n')
    return { return: { status: 'running', running: true } }
  })
  const qmp = await QmpClient.open(near, { onEvent: (event) => events.push(event) })
  t.is((await qmp.run('query-status', {})).status, 'running')
  t.deepEqual(events, [{ event: 'SHUTDOWN', data: { guest: true, reason: 'guest-reset' } }])
})

test('a QEMU that never greets is noticed', async (t) => {
  const { near } = await pair(t)
  await t.throwsAsync(QmpClient.open(near, { onEvent: () => undefined, timeoutMs: 20 }), { code: 'ERR_QMP_TIMEOUT' })
})

test('a command without an answer times out, and the next one is not confused by the late answer', async (t) => {
  const { near, far } = await pair(t)
  let first = true
  serve(far, () => {
    if (!first) return { return: { status: 'paused' } }
    first = false
    return undefined
  })
  const qmp = await QmpClient.open(near, { onEvent: () => undefined })
  await t.throwsAsync(qmp.run('query-status', {}, { timeoutMs: 20 }), { code: 'ERR_QMP_TIMEOUT' })
  far.write('{"return": {"status": "late"}, "id": 2}\r\n')
  t.is((await qmp.run('query-status', {})).status, 'paused')
})

test('an error answer is a refusal with QEMU’s words', async (t) => {
  const { near, far } = await pair(t)
  serve(far, () => ({ error: { class: 'GenericError', desc: 'not now' } }))
  const qmp = await QmpClient.open(near, { onEvent: () => undefined })
  const error = await t.throwsAsync(qmp.run('cont', {}), { code: 'ERR_QMP_REFUSED' })
  t.regex(error?.message ?? '', /not now/)
})

test('the end of the connection fails what is outstanding and what comes later', async (t) => {
  const { near, far } = await pair(t)
  serve(far, () => {
    far.destroy()
    return undefined
  })
  const qmp = await QmpClient.open(near, { onEvent: () => undefined })
  await t.throwsAsync(qmp.run('cont', {}), { code: 'ERR_QMP_CLOSED' })
  await qmp.closed
  await t.throwsAsync(qmp.run('cont', {}), { code: 'ERR_QMP_CLOSED' })
})

test('lines that are no messages are ignored, and an endless line ends the connection', async (t) => {
  const { near, far } = await pair(t)
  serve(far, () => ({ return: {} }))
  const qmp = await QmpClient.open(near, { onEvent: () => undefined })
  far.write('nonsense\r\n[1]\r\n"x"\r\n')
  await t.notThrowsAsync(qmp.run('cont', {}))
  far.on('error', () => undefined).write('x'.repeat(1024 * 1024 + 1))
  await qmp.closed
  await t.throwsAsync(qmp.run('cont', {}), { code: 'ERR_QMP_CLOSED' })
})
