import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { joinStreams } from '#guest/agent/copy'
import { nodeNetwork } from '#guest/platform/node/network'
import { FdStream, listenUnix } from '#native/guest/index'

test('a stream joined to a local port carries requests and answers both ways', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caisson-port-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const body = 'x'.repeat(500_000)
  const server = createServer((_, response) => response.end(body)).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await new Promise((resolve) => server.once('listening', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') return t.fail()

  const path = join(folder, 's')
  const listener = listenUnix(path)
  t.teardown(() => listener.close())
  const socket = connect(path)
  const fd = await listener.accept()
  if (fd === null) return t.fail()
  const joined = joinStreams(new FdStream(fd, 'socket'), await nodeNetwork.connectLocal(address.port))
  const answer = await new Promise<string>((resolve, reject) => {
    const call = request(
      { createConnection: () => socket, path: '/', headers: { connection: 'close' } },
      (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
        })
        response.once('end', () => resolve(text))
      },
    )
    call.once('error', reject)
    call.end()
  })
  t.is(answer, body)
  await joined
})

test('a port that nobody listens on is closed', async (t) => {
  await t.throwsAsync(nodeNetwork.connectLocal(1), { code: 'ERR_PORT_CLOSED' })
})
