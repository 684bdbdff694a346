/** `caisson verifier tenant`, `resource`, `identity`, `audit` and `explain`, as administrators type them, against a running verifier. */
import { readFileSync, statSync } from 'node:fs'
import test from 'ava'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { openExistingDatabase } from '#attestation/store/open-database'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { type CommandSpec, parseInvocation } from '#cli/command'
import { verifierAudit } from '#cli/commands/verifier-audit'
import { verifierBackup, verifierRestore } from '#cli/commands/verifier-backup'
import { verifierExplain } from '#cli/commands/verifier-explain'
import { verifierIdentity } from '#cli/commands/verifier-identity'
import { verifierReferenceValue } from '#cli/commands/verifier-reference-value'
import { verifierResource } from '#cli/commands/verifier-resource'
import { verifierTenant } from '#cli/commands/verifier-tenant'
import { Captured, deskAt } from './desk.ts'
import { amd, attesterOf, INITDATA, policyWith, snpReference, snpSource } from './hardware-guests.ts'

const IMAGE = `sha256:${'1'.repeat(64)}`

test('a tenant is made, listed with its administrators, and removed with everything it had', async (t) => {
  const { site, file, caisson } = await deskAt(t)
  const owner = createAdminKey()
  const key = file('owner.jwk', JSON.stringify(owner.privateJwk))
  const made = await caisson(verifierTenant, 'put', 'shop', '--admin', `owner:${key}`, '--max-resources', '1')
  t.is(made.trim(), `shop: ${site.verifier.url}/t/shop`)
  t.regex(await caisson(verifierTenant, 'list'), /^shop {2}owner [\w-]+ {2}1 resources, /m)
  const listed = JSON.parse(await caisson(verifierTenant, 'list', '--json')) as { name: string; maxResources: number }[]
  t.like(
    listed.find(({ name }) => name === 'shop'),
    { maxResources: 1 },
  )
  t.false(JSON.stringify(listed).includes(owner.privateJwk.d ?? '?'), 'the public half alone')
  t.regex(await caisson(verifierTenant, 'remove', 'shop'), /removed shop/)
  t.notRegex(await caisson(verifierTenant, 'list'), /shop/)
})

test('what is not said of a tenant stays as it was, its administrators above all', async (t) => {
  const { site, file, caisson } = await deskAt(t)
  const [owner, auditor] = [createAdminKey(), createAdminKey()]
  const key = file('owner.jwk', JSON.stringify(owner.privateJwk))
  const listed = async (): Promise<object | undefined> =>
    (await site.admin.listTenants()).find(({ name }) => name === 'shop')
  await caisson(verifierTenant, 'put', 'shop', '--admin', `owner:${key}`, '--max-resources', '7')
  await site.admin.putTenant('shop', { keepAttestations: 33 })
  await caisson(verifierTenant, 'put', 'shop', '--requests-per-minute', '12')
  const kept = { maxResources: 7, keepAttestations: 33, requestsPerMinute: 12 }
  t.like(await listed(), { ...kept, admins: [{ role: 'owner' }] })
  t.regex(
    await caisson(verifierTenant, 'list'),
    /^shop {2}owner [\w-]+ {2}7 resources, 1073741824 bytes, 12 requests a minute, 33 records kept$/m,
  )
  const url = `${site.verifier.url}/t/shop`
  const client = new VerifierAdminClient({ http: site.http, url, adminKey: owner.privateJwk })
  await t.notThrowsAsync(client.listResources())

  const other = file('auditor.jwk', JSON.stringify(auditor.publicJwk))
  await caisson(verifierTenant, 'put', 'shop', '--admin', `auditor:${other}`)
  t.like(await listed(), { ...kept, admins: [{ role: 'auditor' }] })
  await t.throwsAsync(client.listResources(), undefined, 'those that are named replace those before')
  await caisson(verifierTenant, 'put', 'shop', '--no-admins', '--keep-attestations', '44')
  t.like(await listed(), { ...kept, keepAttestations: 44, admins: [] })
  await t.throwsAsync(caisson(verifierTenant, 'put', 'shop', '--no-admins', '--admin', `owner:${key}`), {
    code: 'ERR_USAGE',
  })
})

test('a resource is stored under terms, listed without its content, rolled back and removed', async (t) => {
  const { file, caisson } = await deskAt(t)
  const path = 'default/tls/key'
  const put = (content: string, ...terms: readonly string[]) =>
    caisson(verifierResource, 'put', path, file('content', content), ...terms)
  t.is((await put('one')).trim(), `stored ${path}`)
  const narrow = ['--reference', 'guest-1', '--require', 'tee == "snp"']
  await put('two two', '--require-image', IMAGE, ...narrow, '--max-guests', '1', '--not-after', '2099-01-01T00:00:00Z')
  const line = `${path}  7 bytes  version 2  images ${IMAGE}, reference guest-1, require tee == "snp"`
  t.is((await caisson(verifierResource, 'list')).trim(), line)
  const listed = await caisson(verifierResource, 'list', '--json')
  t.like((JSON.parse(listed) as object[])[0], { release: { kind: 'images', manifests: [IMAGE] }, maxHolders: 1 })
  t.false(listed.includes('two two'))
  t.regex(await caisson(verifierResource, 'roll-back', path), /the version before is current again/)
  t.regex(await caisson(verifierResource, 'list'), /3 bytes/)
  t.regex(await caisson(verifierResource, 'remove', path), /removed default/)
  t.is((await caisson(verifierResource, 'list')).trim(), '')
})

test('times of resources and reference values are read as by every other command: days, UTC, seconds, and no 30 February', async (t) => {
  const { site, file, caisson } = await deskAt(t)
  const content = file('content', 'x')
  await caisson(verifierResource, 'put', 'a/b/c', content, '--not-before', '2098-12-31', '--not-after', '4070908800')
  const [resource] = await site.admin.listResources()
  t.like(JSON.parse(JSON.stringify(resource)) as object, {
    notBefore: '2098-12-31T00:00:00.000Z',
    notAfter: '2099-01-01T00:00:00.000Z',
  })
  await site.admin.putReference(snpReference('web', [{ vcpus: 1, measurement: 'cd'.repeat(48) }]))
  const retired = await caisson(verifierReferenceValue, 'retire', 'web', '--until', '2099-01-31 12:00')
  t.regex(retired, /web counts until 2099-01-31T12:00:00\.000Z/)
  t.like((await site.admin.listReferences())[0], { until: '2099-01-31T12:00:00.000Z' })
  const wrong: readonly (readonly [CommandSpec, readonly string[], string])[] = [
    [verifierResource, ['put', 'a/b/c', content], '--not-before'],
    [verifierResource, ['put', 'a/b/c', content], '--not-after'],
    [verifierReferenceValue, ['retire', 'web'], '--until'],
  ]
  for (const [spec, words, option] of wrong) {
    for (const time of ['2099-02-30', '31 Jan 2099', 'soon', '']) {
      const error = await t.throwsAsync(caisson(spec, ...words, option, time), { code: 'ERR_USAGE' }, time)
      t.true(error?.message.startsWith(`${option} ${JSON.stringify(time)} `), 'which option')
    }
  }
})

test('names for certificates are granted, listed and taken back', async (t) => {
  const { caisson } = await deskAt(t)
  t.regex(await caisson(verifierIdentity, 'list'), /no guest gets a certificate/)
  const words = ['--name', 'web.shop.example', '--name', 'shop.example', '--require-image', IMAGE]
  t.regex(await caisson(verifierIdentity, 'put', 'web', ...words), /guests may be web\.shop\.example, shop\.example/)
  const line = `web  web.shop.example, shop.example  images ${IMAGE}`
  t.is((await caisson(verifierIdentity, 'list')).trim(), line)
  const [grant] = JSON.parse(await caisson(verifierIdentity, 'list', '--json')) as object[]
  t.like(grant, { id: 'web', release: { kind: 'images', manifests: [IMAGE] } })
  const narrow = ['--reference', 'guest-1', '--reference', 'guest-2', '--require', 'tee == "snp"']
  await caisson(verifierIdentity, 'put', 'web', '--name', 'web.shop.example', ...narrow)
  const [narrowed] = JSON.parse(await caisson(verifierIdentity, 'list', '--json')) as object[]
  const release = { kind: 'attested', references: ['guest-1', 'guest-2'], require: 'tee == "snp"' }
  t.like(narrowed, { id: 'web', release })
  t.regex(await caisson(verifierIdentity, 'list'), /attested, reference guest-1 or guest-2, require tee == "snp"$/m)
  await t.throwsAsync(caisson(verifierIdentity, 'put', 'web', '--name', 'web.shop.example', '--require', 'tee =='), {
    code: 'ERR_CONDITION',
  })
  t.regex(await caisson(verifierIdentity, 'remove', 'web'), /no further certificates/)
  t.regex(await caisson(verifierIdentity, 'list'), /no guest gets a certificate/)
})

test('the audit log is listed, verified from one checkpoint to the next, and a log that was changed is told', async (t) => {
  const { site, file, caisson, exitOf } = await deskAt(t)
  await site.admin.putResource('a/b/one', Buffer.of(1))
  t.regex(await caisson(verifierAudit, 'list'), /accepted {2}resource\.put {2}a\/b\/one/)
  const checkpoint = file('audit.json')
  t.regex(
    await caisson(verifierAudit, 'verify', '--checkpoint', checkpoint),
    /1 entries, no checkpoint to compare with/,
  )
  await site.admin.putResource('a/b/two', Buffer.of(2))
  t.regex(await caisson(verifierAudit, 'verify', '--checkpoint', checkpoint), /2 entries, 1 of them as checked before/)
  t.is((JSON.parse(await caisson(verifierAudit, 'list', '--limit', '1', '--json')) as object[]).length, 1)

  const kept = JSON.parse(readFileSync(checkpoint, 'utf8')) as { root: string }
  file('audit.json', JSON.stringify({ ...kept, root: kept.root.replace(/^./, (c) => (c === 'a' ? 'b' : 'a')) }))
  const changed = await exitOf(verifierAudit, 'verify', '--checkpoint', checkpoint, '--json')
  t.is(changed.code, 1)
  t.like(JSON.parse(changed.text) as object, { verdict: 'changed' })
})

test('one entry of the audit log is proved against a checkpoint, and one that was changed since is told', async (t) => {
  const { site, file, caisson, exitOf } = await deskAt(t)
  for (const name of ['one', 'two', 'three']) await site.admin.putResource(`a/b/${name}`, Buffer.of(1))
  const checkpoint = file('audit.json')
  await caisson(verifierAudit, 'verify', '--checkpoint', checkpoint)
  const kept = readFileSync(checkpoint, 'utf8')
  await site.admin.putResource('a/b/four', Buffer.of(1))
  const text = await caisson(verifierAudit, 'prove', '1', '--checkpoint', checkpoint)
  t.regex(text, /"subject":"a\/b\/two"[\s\S]*^entry 1 of 3, as checked before; root [0-9a-f]{64}$/m)
  t.regex(await caisson(verifierAudit, 'prove', '3'), /a\/b\/four[\s\S]*entry 3 of 4, no checkpoint to compare with/)
  await t.throwsAsync(caisson(verifierAudit, 'prove', '3', '--checkpoint', checkpoint), { code: 'ERR_AUDIT_RANGE' })
  const store = await openExistingDatabase(site.storePath)
  await store.run("UPDATE tenant_audit_leaves SET leaf = replace(leaf, 'two', 'six') WHERE position = 1")
  await store[Symbol.asyncDispose]()
  const changed = await exitOf(verifierAudit, 'prove', '1', '--checkpoint', checkpoint, '--json')
  t.is(changed.code, 1)
  t.like(JSON.parse(changed.text) as object, { verdict: 'changed', code: 'ERR_AUDIT_CHANGED' })
  t.regex(await caisson(verifierAudit, 'prove', '2', '--checkpoint', checkpoint), /a\/b\/three/)
  t.is(readFileSync(checkpoint, 'utf8'), kept)
})

test('a refused attestation is explained claim by claim, by the id that guest and host were given', async (t) => {
  const { site, caisson } = await deskAt(t)
  await site.admin.putPolicy('amd', policyWith([amd.ark.der]))
  await site.admin.putReference(snpReference('web', [{ vcpus: 1, measurement: 'cd'.repeat(48) }]))
  const error = await t.throwsAsync(attesterOf(site, snpSource()).attest({ initdataToml: INITDATA }), {
    instanceOf: VerifierRefusal,
  })
  const id = error?.refusal.correlationId ?? ''
  const text = await caisson(verifierExplain, id)
  t.regex(text, new RegExp(`^${id} {2}.* attest +refused {2}ERR_`, 'm'))
  t.regex(text, /NO {2}\S[\s\S]* {6}expected .*\n {6}found {4}.*/)
  t.regex(text, /remedy/)
  t.regex(await caisson(verifierExplain), new RegExp(`^${id} {2}`, 'm'))
  const records = JSON.parse(await caisson(verifierExplain, id, '--json')) as { id: string }[]
  t.true(records.some((record) => record.id === id))
})

const WRONG: readonly [CommandSpec, readonly (readonly string[])[]][] = [
  [
    verifierTenant,
    [['put'], ['explode'], ['list', 'x'], ['put', 'x', '--admin', 'king:x'], ['put', 'x', '--max-bytes', 'many']],
  ],
  [
    verifierResource,
    [
      ['put', 'a/b/c'],
      ['explode'],
      ['remove'],
      ['put', 'a/b/c', 'package.json', '--max-guests', '0'],
      ['put', 'a/b/c', 'package.json', '--max-guests', '1000001'],
      ['put', 'a/b/c', 'package.json', '--not-after', 'soon'],
    ],
  ],
  [verifierIdentity, [['put', 'web'], ['explode'], ['remove']]],
  [verifierAudit, [['explode'], ['list', '--limit', 'x'], ['list', '--limit', '0'], ['list', '--limit', '501']]],
]
for (const [spec, mistakes] of WRONG) {
  test(`${spec.path} refuses words that it does not know, with a remedy, and shows examples of those it does`, async (t) => {
    const { caisson, file } = await deskAt(t)
    for (const words of mistakes) {
      const error = await t.throwsAsync(caisson(spec, ...words), { code: 'ERR_USAGE' }, words.join(' '))
      t.regex(String((error as { hint?: string } | undefined)?.hint), /\S/, words.join(' '))
    }
    t.true(spec.examples.every((example) => example.startsWith(`caisson ${spec.path} `)))
    if (spec !== verifierTenant) return
    const key = file('no.jwk', 'not a key')
    await t.throwsAsync(caisson(spec, 'put', 'x', '--admin', `owner:${key}`), { code: 'ERR_ADMIN_KEY' })
  })
}

test('a store is backed up while its verifier runs, and restored where nothing is, with one-time secrets blocked unless told otherwise', async (t) => {
  const { site, file } = await deskAt(t)
  await site.admin.putResource('a/b/kept', Buffer.from('of the shop alone'))
  await site.admin.putResource('a/b/once', Buffer.from('once'), { kind: 'attested' }, { maxHolders: 1 })
  const run = async (spec: CommandSpec, ...words: readonly string[]): Promise<string> => {
    const out = new Captured(words.includes('--json'))
    t.is(await spec.run(parseInvocation(spec, words, out)), 0)
    return out.text
  }
  const backup = file('verifier.backup')
  t.regex(await run(verifierBackup, backup, '--store', site.storePath), /^[1-9]\d* rows in /)
  t.is(statSync(backup).mode & 0o077, 0)
  for (const form of ['of the shop alone', Buffer.from('of the shop alone').toString('base64')]) {
    t.false(readFileSync(backup, 'utf8').includes(form), 'secrets stay sealed')
  }
  const restored = file('restored.db')
  const said = await run(verifierRestore, backup, '--store', restored, '--json')
  t.like(JSON.parse(said) as object, { blockedOneTimeSecrets: 1 })
  await t.throwsAsync(run(verifierRestore, backup, '--store', restored), { code: 'ERR_BACKUP_TARGET' })
  const all = file('all.db')
  const kept = await run(verifierRestore, backup, '--store', all, '--keep-one-time', '--json')
  t.like(JSON.parse(kept) as object, { blockedOneTimeSecrets: 0 })
})
