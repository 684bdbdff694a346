/** Our client against containerd, whose ttrpc is the Go library: the implementation everyone else must agree with. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, createFileRegistry, type DescMessage } from '@bufbuild/protobuf'
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt'
import test, { type ExecutionContext } from 'ava'
import { byteStreamFromDuplex } from '#protocol/node/duplex-stream'
import { type Method, TtrpcClient } from '#protocol/ttrpc/client'
import { parseResponse } from '#protocol/ttrpc/envelope'
import { encodeFrame, FrameDecoder } from '#protocol/ttrpc/frame'
import { RpcError } from '#protocol/ttrpc/status'

/** containerd's api/services/ttrpc/events/v1/events.proto, as far as it is used here. */
function eventsService(): Method<'unary', DescMessage, DescMessage> {
  const { STRING, MESSAGE, BYTES, INT64 } = FieldDescriptorProto_Type
  const label = FieldDescriptorProto_Label.OPTIONAL
  const pkg = '.containerd.services.events.ttrpc.v1'
  const file = create(FileDescriptorProtoSchema, {
    name: 'events.proto',
    package: pkg.slice(1),
    syntax: 'proto3',
    messageType: [
      {
        name: 'ForwardRequest',
        field: [{ name: 'envelope', number: 1, type: MESSAGE, typeName: `${pkg}.Envelope`, label }],
      },
      {
        name: 'Envelope',
        field: [
          { name: 'timestamp', number: 1, type: MESSAGE, typeName: `${pkg}.Time`, label },
          { name: 'namespace', number: 2, type: STRING, label },
          { name: 'topic', number: 3, type: STRING, label },
          { name: 'event', number: 4, type: MESSAGE, typeName: `${pkg}.Any`, label },
        ],
      },
      {
        name: 'Any',
        field: [
          { name: 'type_url', number: 1, type: STRING, label },
          { name: 'value', number: 2, type: BYTES, label },
        ],
      },
      { name: 'Time', field: [{ name: 'seconds', number: 1, type: INT64, label }] },
      { name: 'Empty' },
    ],
    service: [
      {
        name: 'Events',
        method: [{ name: 'Forward', inputType: `${pkg}.ForwardRequest`, outputType: `${pkg}.Empty` }],
      },
    ],
  })
  const service = createFileRegistry(file, () => undefined).getService(`${pkg.slice(1)}.Events`)
  const method = service?.methods[0]
  if (method === undefined) throw new Error('the description lost its method')
  return { ...method, methodKind: 'unary' }
}

/** A containerd of its own, without CRI; answers with its directory. */
async function startContainerd(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'ttrpc-'))
  await mkdir(join(directory, 'state'))
  const config = join(directory, 'config.toml')
  await writeFile(
    config,
    [
      'version = 2',
      `root = "${directory}/root"`,
      `state = "${directory}/state"`,
      'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
      '[grpc]',
      `address = "${directory}/grpc.sock"`,
      '[ttrpc]',
      `address = "${directory}/ttrpc.sock"`,
    ].join('\n'),
  )
  const containerd = spawn('containerd', ['--config', config], { stdio: 'ignore' })
  t.teardown(async () => {
    const exited = containerd.exitCode === null ? once(containerd, 'exit') : undefined
    containerd.kill()
    await exited
    await rm(directory, { recursive: true, force: true })
  })
  await appears(join(directory, 'grpc.sock'))
  return directory
}

async function appears(path: string): Promise<void> {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await sleep(50)) {
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return
  }
  throw new Error(`${path} did not appear`)
}

function client(t: ExecutionContext, directory: string): TtrpcClient {
  const socket = connect({ path: join(directory, 'ttrpc.sock'), allowHalfOpen: true })
  const ttrpc = new TtrpcClient(byteStreamFromDuplex(socket))
  t.teardown(() => ttrpc.close())
  return ttrpc
}

const namespace = { 'containerd-namespace-ttrpc': 'caisson-test' }

function envelope(topic: string) {
  return {
    envelope: {
      timestamp: { seconds: 1_700_000_000n },
      namespace: 'caisson-test',
      topic,
      event: { typeUrl: 'containerd.events.TaskPaused', value: new Uint8Array(0) },
    },
  }
}

test('containerd takes an event from our client and publishes it with its topic and namespace', async (t) => {
  const directory = await startContainerd(t)
  const address = join(directory, 'grpc.sock')
  const ctr = spawn('ctr', ['--address', address, '--namespace', 'caisson-test', 'events'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  t.teardown(() => ctr.kill())
  const lines = createInterface({ input: ctr.stdout })
  const seen = once(lines, 'line')
  const ttrpc = client(t, directory)
  const forward = eventsService()
  // The subscription of ctr starts at a time of its own; events are sent until it shows one.
  let line: unknown
  for (const deadline = Date.now() + 20_000; line === undefined && Date.now() < deadline; ) {
    t.is(
      (await ttrpc.unary(forward, envelope('/caisson/test'), { metadata: namespace, timeoutMs: 60_000 })).$typeName,
      forward.output.typeName,
    )
    line = await Promise.race([seen.then(([first]) => String(first)), sleep(200)])
  }
  t.regex(String(line), /caisson-test \/caisson\/test/)
})

test('containerd refuses an invalid topic, and the status reaches the caller', async (t) => {
  const directory = await startContainerd(t)
  const error = await t.throwsAsync(
    client(t, directory).unary(eventsService(), envelope('no-slash'), { metadata: namespace }),
    {
      instanceOf: RpcError,
    },
  )
  t.is(error?.code, 'ERR_RPC_STATUS')
  t.regex(error?.message ?? '', /no-slash/)
})

test('a service that containerd does not have is unimplemented', async (t) => {
  const directory = await startContainerd(t)
  const method = eventsService()
  const unknown = { ...method, parent: { ...method.parent, typeName: 'caisson.Nope' } }
  const error = await t.throwsAsync(client(t, directory).unary(unknown, {}), { instanceOf: RpcError })
  t.is(error?.status.code, 12)
})

test('many calls at once on one connection are all answered', async (t) => {
  const directory = await startContainerd(t)
  const ttrpc = client(t, directory)
  const forward = eventsService()
  const calls = Array.from({ length: 300 }, (_, index) =>
    ttrpc.unary(forward, envelope(`/caisson/${index}`), { metadata: namespace, timeoutMs: 20_000 }),
  )
  t.is((await Promise.all(calls)).length, 300)
})

test('containerd answers an even stream id as our server does', async (t) => {
  const directory = await startContainerd(t)
  const socket = connect({ path: join(directory, 'ttrpc.sock'), allowHalfOpen: true })
  const stream = byteStreamFromDuplex(socket)
  t.teardown(() => stream.destroy())
  await stream.write(encodeFrame({ streamId: 2, type: 1, flags: 0, data: new Uint8Array(0) }))
  const decoder = new FrameDecoder()
  const chunk = await stream.read()
  const [answer] = chunk === null ? [] : [...decoder.push(chunk)]
  t.like(answer, { streamId: 2, type: 2, flags: 0 })
  t.is(parseResponse(answer?.data ?? new Uint8Array(0)).status.code, 3)
})
