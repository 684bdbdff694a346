import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { closeDescriptor, FdStream, listenVsock, openNull, pipe, readInRoot, SyscallError } from '#native/guest/index'

async function collect(stream: FdStream): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function pipeStreams(): { reader: FdStream; writer: FdStream } {
  const { ours, theirs } = pipe('read')
  return { reader: new FdStream(ours, 'reader'), writer: new FdStream(theirs, 'writer') }
}

test('bytes written to one end of a pipe arrive at the other, in order and to the last', async (t) => {
  const { reader, writer } = pipeStreams()
  const sent = Buffer.alloc(1_000_000, 'caisson ')
  const received = collect(reader)
  await writer.write(sent.subarray(0, 400_000))
  await writer.write(sent.subarray(400_000))
  await writer.end()
  t.deepEqual(Buffer.from(await received), sent)
  reader.destroy()
})

test('a stream that nobody reads holds its writer back', async (t) => {
  const { reader, writer } = pipeStreams()
  let done = false
  const written = writer.write(new Uint8Array(1 << 20)).then(() => {
    done = true
  })
  // The pipe holds 64 KiB, so after everything that can run has run, the write still waits.
  await new Promise((resolve) => setImmediate(resolve))
  t.false(done)
  const rest = collect(reader)
  await written
  await writer.end()
  t.is((await rest).byteLength, 1 << 20)
  reader.destroy()
})

test('destroying a stream ends a read that waits, and fails a write that waits', async (t) => {
  const first = pipeStreams()
  const read = first.reader.read()
  first.reader.destroy()
  t.is(await read, null)
  first.writer.destroy()

  const second = pipeStreams()
  const write = second.writer.write(new Uint8Array(1 << 20))
  await new Promise((resolve) => setImmediate(resolve))
  second.writer.destroy()
  await t.throwsAsync(write, { code: 'ERR_STREAM_BROKEN' })
  second.reader.destroy()
})

test('writing to a pipe whose reader is gone is a broken stream', async (t) => {
  const { reader, writer } = pipeStreams()
  reader.destroy()
  await t.throwsAsync(writer.write(new Uint8Array(1)), { code: 'ERR_STREAM_BROKEN' })
  writer.destroy()
})

test('a vsock listener opens, and closing it ends the wait for connections', async (t) => {
  const listener = listenVsock(40_000 + (process.pid % 20_000))
  const accepted = listener.accept()
  listener.close()
  t.is(await accepted, null)
})

test('reading below a root never leaves it, whatever links say', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'caisson-root-'))
  t.teardown(() => rm(root, { recursive: true }))
  await writeFile(join(root, 'passwd'), 'inside')
  await symlink('/passwd', join(root, 'absolute'))
  await symlink('../../../../etc/hostname', join(root, 'dots'))
  await symlink('/proc/self/root/etc/hostname', join(root, 'magic'))
  const read = async (path: string) => {
    const bytes = await readInRoot(root, path, 1024)
    return bytes === undefined ? undefined : Buffer.from(bytes).toString()
  }
  t.is(await read('passwd'), 'inside')
  t.is(await read('absolute'), 'inside')
  t.is(await read('/../../passwd'), 'inside')
  t.is(await read('dots'), undefined)
  t.is(await read('magic'), undefined)
  const huge = await t.throwsAsync(readInRoot(root, 'passwd', 3), { instanceOf: SyscallError })
  t.is(huge?.errno, 'EFBIG')
  const folder = await t.throwsAsync(readInRoot(root, '/', 3), { instanceOf: SyscallError })
  t.is(folder?.errno, 'EINVAL')
})

test('descriptors are handed over and closed once', (t) => {
  const fd = openNull()
  t.true(fd > 2)
  closeDescriptor(fd)
  t.throws(() => closeDescriptor(fd), { instanceOf: SyscallError })
})
