import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, type DescMethod, fromBinary, type Message, toBinary } from '@bufbuild/protobuf'
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type MethodDefinition,
  Server,
  ServerCredentials,
  status,
} from '@grpc/grpc-js'
import test, { type ExecutionContext } from 'ava'
import { Content, ReadContentResponseSchema } from '#host-shim/containerd/gen/content_pb'
import {
  GetImageResponseSchema,
  ImageSchema,
  Images,
  ListImagesResponseSchema,
} from '#host-shim/containerd/gen/images_pb'
import { GrpcClient } from '#host-shim/containerd/grpc'
import { GuestRoots } from '#host-shim/snapshotter/guest-roots'

const LAYER = `sha256:${'1'.repeat(64)}`

/** What a containerd says of two images of guests, one for each user; `failing` is the status of all that concerns the second. */
async function containerdThat(t: ExecutionContext, failing: number): Promise<{ client: GrpcClient; folder: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'roots-'))
  const server = new Server()
  const image = (name: string) => create(ImageSchema, { name: `r.example/${name}`, target: { digest: name } })
  const reading: handleServerStreamingCall<Message, Message> = (call) => {
    const { digest } = call.request as Message & { readonly digest: string }
    const name = digest.replace(/-config$/, '')
    if (name === 'two') return void call.emit('error', { code: failing, details: 'as the test says' })
    const document = digest.endsWith('-config')
      ? { config: { User: name }, rootfs: { diff_ids: [LAYER] } }
      : { config: { digest: `${name}-config` } }
    call.write(create(ReadContentResponseSchema, { data: Buffer.from(JSON.stringify(document)) }))
    call.end()
  }
  const get: handleUnaryCall<Message, Message> = (call, callback) => {
    const { name } = call.request as Message & { readonly name: string }
    callback(null, create(GetImageResponseSchema, { image: image(name.replace('r.example/', '')) }))
  }
  const list: handleUnaryCall<Message, Message> = (_call, callback) =>
    callback(null, create(ListImagesResponseSchema, { images: [image('one'), image('two')] }))
  server.addService({ get: wire(Images.method.get), list: wire(Images.method.list) }, { get, list })
  server.addService({ read: wire(Content.method.read) }, { read: reading })
  const socket = join(folder, 'containerd.sock')
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve()
      else reject(error)
    })
  })
  const client = new GrpcClient(socket)
  t.teardown(() => {
    client[Symbol.dispose]()
    server.forceShutdown()
    rmSync(folder, { recursive: true, force: true })
  })
  return { client, folder }
}

function wire(method: DescMethod): MethodDefinition<Message, Message> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: false,
    responseStream: method.methodKind === 'server_streaming',
    requestSerialize: (message) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: (message) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  }
}

test('an image whose documents containerd has lost says nothing of the others', async (t) => {
  const { client, folder } = await containerdThat(t, status.NOT_FOUND)
  const directory = join(folder, 'root')
  mkdirSync(directory)
  await new GuestRoots(client, ['*']).fill({ directory, namespace: 'k8s.io', chainId: LAYER })
  const users = readFileSync(join(directory, 'etc/passwd'), 'utf8')
  t.regex(users, /^one:/m)
  t.notRegex(users, /^two:/m)
})

test('layers are guests’ alone when every image of them is', async (t) => {
  const { client } = await containerdThat(t, status.NOT_FOUND)
  const root = { namespace: 'k8s.io', chainId: LAYER }
  t.true(await new GuestRoots(client, ['r.example/']).isGuestsOnly(root))
  t.false(await new GuestRoots(client, ['r.example/two']).isGuestsOnly(root))
  t.false(await new GuestRoots(client, ['*']).isGuestsOnly({ ...root, chainId: 'sha256:other' }))
})

test('a containerd that does not answer is told as such: no root is made without the users of an image', async (t) => {
  for (const code of [status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.INTERNAL]) {
    const { client, folder } = await containerdThat(t, code)
    const root = { directory: join(folder, 'root'), namespace: 'k8s.io', chainId: LAYER }
    mkdirSync(root.directory)
    await t.throwsAsync(new GuestRoots(client, ['*']).fill(root), { code }, status[code])
  }
})
