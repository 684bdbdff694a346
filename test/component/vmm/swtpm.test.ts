import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createTpmCa, manufactureTpm, startTpm } from '#vmm/swtpm'

async function directory(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tpm-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

test('the CA is made once: its intermediate is signed by its root, and asking again changes nothing', async (t) => {
  const ca = await createTpmCa(join(await directory(t), 'ca'))
  const root = new X509Certificate(await readFile(ca.rootPem))
  const intermediate = new X509Certificate(await readFile(ca.intermediatePem))
  t.true(root.verify(root.publicKey))
  t.true(intermediate.verify(root.publicKey))
  const again = await createTpmCa(ca.directory)
  t.is(new X509Certificate(await readFile(again.rootPem)).fingerprint256, root.fingerprint256)
  t.is((await stat(ca.directory)).mode & 0o777, 0o700)
  t.false((await readdir(ca.directory)).includes('sample'))
})

test('two CAs are two: nothing of the machine’s own swtpm configuration is used', async (t) => {
  const base = await directory(t)
  const [one, two] = await Promise.all([createTpmCa(join(base, 'one')), createTpmCa(join(base, 'two'))])
  t.not(await readFile(one.rootPem, 'utf8'), await readFile(two.rootPem, 'utf8'))
})

test('a CA directory that swtpm cannot name is refused', async (t) => {
  for (const path of ['relative/ca', '/tmp/with space', "/tmp/quote'"]) {
    await t.throwsAsync(createTpmCa(path), { code: 'ERR_TPM_CA_DIRECTORY' })
  }
})

test('a TPM is made private, starts, and is gone after its end', async (t) => {
  const base = await directory(t)
  const ca = await createTpmCa(join(base, 'ca'))
  const stateDir = join(base, 'state')
  await manufactureTpm({ stateDir, ca, name: 'pod-1' })
  t.is((await stat(stateDir)).mode & 0o777, 0o700)
  t.deepEqual(
    (await readdir(stateDir)).filter((name) => name.includes('conf') || name.includes('options')),
    [],
  )
  const tpm = await startTpm({ stateDir, socket: join(base, 'tpm.sock') })
  t.notThrows(() => process.kill(tpm.pid, 0))
  await tpm[Symbol.asyncDispose]()
  t.throws(() => process.kill(tpm.pid, 0), { code: 'ESRCH' })
})

test('a TPM without state says why it does not start', async (t) => {
  const base = await directory(t)
  const start = startTpm({ stateDir: join(base, 'absent'), socket: join(base, 'tpm.sock') })
  await t.throwsAsync(start, { code: 'ERR_TPM_START' })
})
