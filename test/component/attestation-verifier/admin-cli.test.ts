/** `caisson verifier policy`, `collateral` and `reference-value`, as administrators type them, against a running verifier. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import test from 'ava'
import { AnswerStore } from '#attestation/collateral/answer-store'
import { MAX_BUNDLE_BYTES, parseBundle } from '#attestation/collateral/bundle'
import { openExistingDatabase } from '#attestation/store/open-database'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { AdministratorRefusal } from '#attestation/verifier/admin/refusal'
import { encodePem } from '#attestation/x509/pem'
import { parseInvocation } from '#cli/command'
import { measureRelease } from '#cli/commands/measure-release'
import { verifierCollateral } from '#cli/commands/verifier-collateral'
import { verifierPolicy } from '#cli/commands/verifier-policy'
import { verifierReferenceValue } from '#cli/commands/verifier-reference-value'
import { exitCodeOf } from '#cli/exit-code'
import { Captured, deskAt } from './desk.ts'
import {
  amd,
  attesterOf,
  INITDATA,
  intel,
  policyWith,
  snpReference,
  snpSource,
  tdxReference,
  tdxSource,
} from './hardware-guests.ts'
import { startVendors } from './vendor-server.ts'

const ROOTS = [amd.ark.der, amd.ask.der, intel.root.der].map((bytes) => encodePem({ label: 'CERTIFICATE', bytes }))
const MEASURED = 'ab'.repeat(48)

test('a policy is checked, put, listed, shown and removed, and decides from then on', async (t) => {
  const { site, file, caisson } = await deskAt(t)
  await site.admin.putReference(snpReference('web', [{ vcpus: 1, measurement: MEASURED }]))
  const attest = () => attesterOf(site, snpSource()).attest({ initdataToml: INITDATA })
  await t.throwsAsync(attest())
  t.regex(await caisson(verifierPolicy, 'list'), /the strict one counts/)

  const document = policyWith([amd.ark.der])
  const path = file('policy.yaml', document)
  t.regex(await caisson(verifierPolicy, 'check', path), /is a policy that the verifier takes/)
  t.regex(await caisson(verifierPolicy, 'list'), /the strict one counts/, 'checking keeps nothing')
  t.regex(await caisson(verifierPolicy, 'put', 'production', path), /production counts/)
  await t.notThrowsAsync(attest())
  t.regex(await caisson(verifierPolicy, 'list'), /^production {2}\d{4}-/)
  t.is((await caisson(verifierPolicy, 'show', 'production')).trim(), document.trim())
  const [listed] = JSON.parse(await caisson(verifierPolicy, 'list', '--json')) as { id: string; document: string }[]
  t.like(listed, { id: 'production', document })

  t.regex(await caisson(verifierPolicy, 'remove', 'production'), /removed production/)
  await t.throwsAsync(attest(), undefined, 'what was removed counts no more')
})

test('a command that the verifier refuses says why, with the exit code of its kind, and sends nobody to a record', async (t) => {
  const { site, file, caisson, printed } = await deskAt(t)
  const refusalOf = async (...words: readonly string[]) => {
    const error = await t.throwsAsync(caisson(verifierPolicy, ...words), { instanceOf: AdministratorRefusal })
    t.notRegex(`${error?.message} ${error?.hint}`, /verifier explain/)
    return { exit: exitCodeOf(error), code: error?.refusal.code, told: `${error?.message} ${error?.hint}` }
  }
  const wrong = file('wrong.yaml', 'apiVersion: caisson/v1\nkind: AppraisalPolicy\nminimun: {}\n')
  const malformed = await refusalOf('put', 'x', wrong)
  t.like(malformed, { exit: 2, code: 'ERR_POLICY_MALFORMED' })
  t.regex(malformed.told, /minimun/)
  const { code, stderr } = await printed('verifier', 'policy', 'put', 'x', wrong)
  t.is(code, 2)
  t.regex(stderr, /^caisson: ERR_VERIFIER_REFUSED: .*ERR_POLICY_MALFORMED: .*minimun.*\n {2}remedy: Correct it/)
  t.notRegex(stderr, /verifier explain/)
  t.like(await refusalOf('remove', 'nothing'), { exit: 2, code: 'ERR_POLICY_NOT_FOUND' })

  const auditor = createAdminKey()
  await site.admin.putTenant('shop', { admins: [{ key: auditor.publicJwk, role: 'auditor' }] })
  const asAuditor = ['--url', `${site.verifier.url}/t/shop`, '--admin-key']
  const right = file('right.yaml', policyWith([amd.ark.der]))
  const key = file('auditor.key', JSON.stringify(auditor.privateJwk))
  t.like(await refusalOf('put', 'x', right, ...asAuditor, key), { exit: 1, code: 'ERR_ADMIN_ROLE' })
  const stranger = file('stranger.key', JSON.stringify(createAdminKey().privateJwk))
  t.like(await refusalOf('put', 'x', right, ...asAuditor, stranger), { exit: 1, code: 'ERR_ADMIN_AUTH' })

  const store = new DatabaseSync(site.storePath)
  store.exec('DROP TABLE appraisal_policies')
  store.close()
  const broken = await refusalOf('put', 'x', right)
  t.like(broken, { exit: 3, code: 'ERR_STORE_FAILED' })
  t.regex(broken.told, /the verifier's store failed\. Check the disk .* log tells more under [0-9a-f]{24}/)
  await site.verifier.close()
  const gone = await t.throwsAsync(caisson(verifierPolicy, 'list'), { code: 'ERR_VERIFIER_UNAVAILABLE' })
  t.is(exitCodeOf(gone), 3)
})

test('a policy that is wrong, absent, or handled in a way that there is not, is refused with a remedy', async (t) => {
  const { file, caisson } = await deskAt(t)
  const wrong = file('wrong.yaml', 'apiVersion: caisson/v1\nkind: AppraisalPolicy\nminimun: {}\n')
  for (const words of [
    ['check', wrong],
    ['put', 'x', wrong],
  ]) {
    const error = await t.throwsAsync(caisson(verifierPolicy, ...words))
    t.regex(String(error), /ERR_POLICY_MALFORMED|minimun/)
  }
  await t.throwsAsync(caisson(verifierPolicy, 'show', 'nothing'), { code: 'ERR_POLICY_NOT_FOUND' })
  await t.throwsAsync(caisson(verifierPolicy, 'remove', 'nothing'))
  await t.throwsAsync(caisson(verifierPolicy, 'put', 'x', file('absent.yaml')), { code: 'ERR_FILE_UNREADABLE' })
  for (const words of [['put', 'x'], ['list', 'x'], ['show'], ['check'], ['explode']]) {
    await t.throwsAsync(caisson(verifierPolicy, ...words), { code: 'ERR_USAGE' }, words.join(' '))
  }
})

test('collateral is listed, exported to a file, and imported by a verifier that reaches nobody', async (t) => {
  const vendors = await startVendors(t)
  const online = await deskAt(t, {
    collateralEndpoints: vendors.endpoints,
    collateralTimeoutMs: 120_000,
    trustedCollateralRoots: ROOTS,
  })
  await online.site.admin.putPolicy('ours', policyWith([intel.root.der]))
  await t.throwsAsync(attesterOf(online.site, tdxSource()).attest({ initdataToml: INITDATA })) // no reference values
  const list = await online.caisson(verifierCollateral, 'list')
  t.is(list.trim().split('\n').length, 4)
  t.regex(list, /^https:\/\/api\.trustedservices\.intel\.com\/\S+ {2}of \d{4}-.*, until \d{4}-/m)
  const bundle = online.file('collateral.json')
  t.regex(await online.caisson(verifierCollateral, 'export', bundle), /^wrote .*collateral\.json/)

  const offline = await deskAt(t, { trustedCollateralRoots: ROOTS })
  t.is((await offline.caisson(verifierCollateral, 'list')).trim(), '')
  t.regex(await offline.caisson(verifierCollateral, 'import', bundle), /^4 answers of AMD and Intel imported/)
  t.like(JSON.parse(await offline.caisson(verifierCollateral, 'import', bundle, '--json')), { imported: 4 })
  t.is((await offline.caisson(verifierCollateral, 'list')).trim().split('\n').length, 4)

  const cut = offline.file('cut.json', readFileSync(bundle, 'utf8').slice(0, -100))
  await t.throwsAsync(offline.caisson(verifierCollateral, 'import', cut))
  const strangers = await deskAt(t)
  await t.throwsAsync(strangers.caisson(verifierCollateral, 'import', bundle), undefined, 'makers it does not trust')
  t.is((await strangers.caisson(verifierCollateral, 'list')).trim(), '')
  for (const words of [['export'], ['import'], ['list', 'x'], ['drop', 'x']]) {
    await t.throwsAsync(offline.caisson(verifierCollateral, ...words), { code: 'ERR_USAGE' }, words.join(' '))
  }
})

test('more collateral than one request takes is exported to one file, whose parts are imported one after the other', async (t) => {
  const { site, file, caisson } = await deskAt(t)
  const store = await openExistingDatabase(site.storePath)
  const answers = new AnswerStore(store)
  const at = { fetchedAt: new Date(7), staleAt: new Date(9) }
  const urls = Array.from({ length: 9 }, (_, index) => `https://kdsintf.amd.com/vcek/v1/Milan/${index}`)
  for (const url of urls) await answers.put({ url, files: [{ name: 'x', bytes: new Uint8Array(4_000_000) }], ...at })
  await store[Symbol.asyncDispose]()
  const large = file('large.json')
  await caisson(verifierCollateral, 'export', large)
  const parts = readFileSync(large, 'utf8').trimEnd().split('\n')
  t.true(parts.length > 1 && parts.every((part) => part.length <= MAX_BUNDLE_BYTES))
  t.deepEqual(
    parts.flatMap((part) => parseBundle(part).map(({ url }) => url)),
    urls,
  )

  const vendors = await startVendors(t)
  const online = await deskAt(t, {
    collateralEndpoints: vendors.endpoints,
    collateralTimeoutMs: 120_000,
    trustedCollateralRoots: ROOTS,
  })
  await online.site.admin.putPolicy('ours', policyWith([intel.root.der]))
  await t.throwsAsync(attesterOf(online.site, tdxSource()).attest({ initdataToml: INITDATA })) // no reference values
  const small = online.file('small.json')
  await online.caisson(verifierCollateral, 'export', small)
  const { version, answers: kept } = JSON.parse(readFileSync(small, 'utf8')) as { version: 1; answers: unknown[] }
  const halves = [kept.slice(0, 1), kept.slice(1)].map((part) => JSON.stringify({ version, answers: part }))
  const offline = await deskAt(t, { trustedCollateralRoots: ROOTS })
  const imported = await offline.caisson(verifierCollateral, 'import', offline.file('two.json', halves.join('\n')))
  t.regex(imported, /^4 answers of AMD and Intel imported/)
  t.is((await offline.site.admin.listCollateral()).length, 4)
  t.is((await offline.site.admin.listAudit()).length, 2, 'each part is on record')
  const spread = offline.file('spread.json', JSON.stringify({ version, answers: kept }, null, 2))
  t.regex(await offline.caisson(verifierCollateral, 'import', spread), /^4 answers/, 'one bundle may have many lines')
})

test('collateral that is imported and the record of it are kept together, or neither is', async (t) => {
  const vendors = await startVendors(t)
  const online = await deskAt(t, {
    collateralEndpoints: vendors.endpoints,
    collateralTimeoutMs: 120_000,
    trustedCollateralRoots: ROOTS,
  })
  await online.site.admin.putPolicy('ours', policyWith([intel.root.der]))
  await t.throwsAsync(attesterOf(online.site, tdxSource()).attest({ initdataToml: INITDATA })) // no reference values
  const bundle = online.file('collateral.json')
  await online.caisson(verifierCollateral, 'export', bundle)
  const { site, caisson } = await deskAt(t, { trustedCollateralRoots: ROOTS })
  const store = await openExistingDatabase(site.storePath)
  await store.run('ALTER TABLE tenant_audit_leaves RENAME TO away')
  await t.throwsAsync(caisson(verifierCollateral, 'import', bundle))
  await store.run('ALTER TABLE away RENAME TO tenant_audit_leaves')
  await store[Symbol.asyncDispose]()
  t.deepEqual(await site.admin.listCollateral(), [])
  t.regex(await caisson(verifierCollateral, 'import', bundle), /^4 answers/)
})

test('a signed release registers all of its documents, one that its maker did not sign none', async (t) => {
  const { site, file, caisson } = await deskAt(t)
  const pair = (name: string): { key: string; pub: string } => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    return {
      key: file(`${name}.key`, privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()),
      pub: file(`${name}.pub`, publicKey.export({ format: 'pem', type: 'spki' }).toString()),
    }
  }
  const [maker, stranger] = [pair('maker'), pair('stranger')]
  const web = file('web.json', snpReference('web', [{ vcpus: 1, measurement: MEASURED }]))
  const td = file('td.json', tdxReference('td', {}))
  const manifest = file('release.json')
  const out = new Captured(false)
  const words = ['2.4.0', web, td, '--key', maker.key, '-o', manifest]
  t.is(await measureRelease.run(parseInvocation(measureRelease, words, out)), 0)

  const register = (pub: string) =>
    caisson(verifierReferenceValue, 'register', manifest, '--release-key', pub, '--candidate')
  await t.throwsAsync(register(stranger.pub), { code: 'ERR_RELEASE_SIGNATURE' })
  await t.throwsAsync(caisson(verifierReferenceValue, 'register', web, '--release-key', maker.pub), {
    code: 'ERR_RELEASE_MANIFEST',
  })
  await t.throwsAsync(register(web), { code: 'ERR_RELEASE_KEY' })
  t.deepEqual(await site.admin.listReferences(), [])

  t.regex(await register(maker.pub), /^web {2}candidate {2}\(release 2\.4\.0\)\ntd {2}candidate/)
  const states = (await site.admin.listReferences()).map(({ id, state }) => `${id} ${state}`)
  t.deepEqual(
    states.toSorted((a, b) => a.localeCompare(b)),
    ['td candidate', 'web candidate'],
  )
})

test('what a file would change is told before it is registered', async (t) => {
  const { site, file, caisson, exitOf } = await deskAt(t)
  const document = (measurement: string): string => snpReference('web', [{ vcpus: 1, measurement }])
  await site.admin.putReference(document(MEASURED))
  t.regex(await caisson(verifierReferenceValue, 'diff', file('same.json', document(MEASURED))), /registered as it is/)
  const other = file('other.json', document('cd'.repeat(48)))
  const { code, text } = await exitOf(verifierReferenceValue, 'diff', other)
  t.is(code, 1)
  t.is(text.trim(), `measurements.0.measurement: "${MEASURED}" → "${'cd'.repeat(48)}"`)
  const against = await exitOf(verifierReferenceValue, 'diff', file('td.json', tdxReference('td', {})), 'web')
  t.is(against.code, 1)
  t.regex(against.text, /^platform: "snp" → "tdx"$/m)
  t.regex(against.text, /^rtmr1: nothing → /m)
  await t.throwsAsync(caisson(verifierReferenceValue, 'diff', other, 'absent'), { code: 'ERR_REFERENCE_NOT_FOUND' })
  for (const words of [['diff'], ['list', 'x', 'y'], ['promote', 'x', 'y']]) {
    await t.throwsAsync(caisson(verifierReferenceValue, ...words), { code: 'ERR_USAGE' }, words.join(' '))
  }
})
