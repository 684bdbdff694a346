import test from 'ava'
import { runAgent } from '#guest/agent/agent'
import { MAX_RPC_CONNECTIONS, MAX_RPC_IN_FLIGHT_BYTES, RESERVED_MEMORY_BYTES } from '#guest/agent/limits'
import { AGENT_RPC_PORT, Agent } from '#protocol/agent-service'
import type { ByteStream } from '#protocol/byte-stream'
import { TtrpcClient } from '#protocol/ttrpc/client'
import { FakePlatform } from './fake-platform.ts'
import { streamPair } from './stream-pair.ts'

/** The agent on a machine whose host side opens `hosts` connections for RPC. */
function agentWith(hosts: number) {
  const outside: ByteStream[] = []
  const inside = Array.from({ length: hosts }, () => {
    const [guest, host] = streamPair()
    outside.push(host)
    return guest
  })
  const never = new Promise<void>(() => undefined)
  const platform = Object.assign(new FakePlatform(), {
    listenVsock: (port: number) => ({
      connections: (async function* () {
        if (port === AGENT_RPC_PORT) yield* inside
        await never
      })(),
      close: () => undefined,
    }),
  })
  const unused = () => Promise.reject(new Error('not in this test'))
  void runAgent({ platform, version: '1', imageTools: unused, createVerifier: unused })
  return { outside, platform }
}

test('the agent says that it is ready, and turns away one connection more than it serves', async (t) => {
  const { outside, platform } = agentWith(MAX_RPC_CONNECTIONS + 1)
  t.deepEqual(platform.codes, ['agent-ready'])
  const [first, last] = [outside[0], outside.at(-1)]
  if (first === undefined || last === undefined) return t.fail()
  t.is(await last.read(), null)
  const client = new TtrpcClient(first)
  t.is((await client.unary(Agent.method.getStatus, {})).agentVersion, '1')
  client.close()
})

test('requests that a host leaves unfinished cannot take the memory that the agent keeps for itself', (t) => {
  t.true(MAX_RPC_CONNECTIONS * MAX_RPC_IN_FLIGHT_BYTES <= RESERVED_MEMORY_BYTES / 4)
})
