/** A host that changes what boots. Each lie must end at the verifier (or in the guest's kernel) with nothing released. */
import { readFileSync, writeFileSync } from 'node:fs'
import anyTest, { type TestFn } from 'ava'
import type { PodPlan } from '#host-shim/pod/pod-plan'
import { BootError } from '#vmm/boot-watch'
import { createTpmCa } from '#vmm/swtpm'
import { attest, boot, honestPlan, refusalOf, withChangedByte } from './fixtures/host.ts'
import { IMAGE_POLICY, Tenant } from './fixtures/tenant.ts'

const test = anyTest as TestFn<{ tenant: Tenant; initdata: Uint8Array }>

const POLICY = `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test:5000/web@sha256:${'ab'.repeat(32)}
`

test.before(async (t) => {
  const tenant = await Tenant.start()
  const initdata = tenant.initdata(POLICY)
  await tenant.expect(initdata)
  t.context = { tenant, initdata }
})

test.after.always(async (t) => {
  await t.context.tenant?.[Symbol.asyncDispose]()
})

/** Another genuine firmware that boots the same kernel and measures itself: Debian's larger build, variables before code. */
function otherFirmware(tenant: Tenant): string {
  const path = tenant.path('other-firmware.fd')
  const parts = ['OVMF_VARS_4M.fd', 'OVMF_CODE_4M.fd'].map((name) => readFileSync(`/usr/share/OVMF/${name}`))
  writeFileSync(path, Buffer.concat(parts))
  return path
}

interface Lie {
  readonly title: string
  /** The plan of the lying host. */
  readonly plan: (honest: PodPlan, tenant: Tenant) => PodPlan | Promise<PodPlan>
  /** The verifier's check that fails, as the tenant reads it. */
  readonly claim: RegExp
}

const LIES: readonly Lie[] = [
  {
    title: 'a kernel changed by one byte is refused by the verifier: PCR 4 differs',
    plan: (honest, tenant) => ({
      ...honest,
      guest: {
        ...honest.guest,
        kernel: withChangedByte(tenant, honest.guest.kernel, versionStringOf(honest.guest.kernel)),
      },
    }),
    claim: /pcr 4/i,
  },
  {
    title: 'a changed kernel command line is refused by the verifier: PCR 9 differs',
    plan: (honest) => ({
      ...honest,
      guest: { ...honest.guest, commandLine: `${honest.guest.commandLine} caisson.debug` },
    }),
    claim: /pcr 9/i,
  },
  {
    title: 'changed firmware is refused by the verifier: PCR 0 differs',
    plan: (honest, tenant) => ({ ...honest, guest: { ...honest.guest, firmware: otherFirmware(tenant) } }),
    claim: /pcr 0/i,
  },
  {
    title: 'initdata exchanged by the host is refused by the verifier: PCR 8 differs',
    plan: (honest, tenant) => ({ ...honest, initdata: tenant.initdata(`${POLICY}    logs: allow\n`) }),
    claim: /pcr 8|initdata/i,
  },
]

for (const lie of LIES) {
  test.serial(lie.title, async (t) => {
    const { tenant, initdata } = t.context
    const pod = await boot(t, tenant, await lie.plan(honestPlan(tenant, initdata), tenant))
    const refusal = await refusalOf(attest(pod))
    t.regex(refusal.code, /^ERR_[A-Z_]+$/)
    t.not(refusal.correlationId, '', 'the host gets an id for the tenant')

    const [record] = await tenant.admin.explain(refusal.correlationId)
    t.is(record?.verdict, 'refused')
    const failed = record?.checks.filter((check) => !check.ok) ?? []
    t.true(
      failed.some((check) => lie.claim.test(check.claim)),
      JSON.stringify(failed),
    )
    t.true(failed.every((check) => check.expected !== '' && check.found !== ''))
    t.deepEqual(tenant.fetchedBlobs(), [], 'nothing was pulled')
    t.deepEqual(await tenant.releases(), [], 'nothing was released')
  })
}

test.serial('a TPM of an unknown CA is refused by the verifier before it is asked for a quote', async (t) => {
  const { tenant, initdata } = t.context
  const plan = { ...honestPlan(tenant, initdata), tpmCa: await createTpmCa(tenant.path('other-tpm-ca')) }
  const refusal = await refusalOf(attest(await boot(t, tenant, plan)))
  const [record] = await tenant.admin.explain(refusal.correlationId)
  t.is(record?.stage, 'auth')
  t.regex(`${record?.reason} ${record?.hint}`, /CA|trust/i)
})

test.serial('one flipped bit in the root file system ends the guest before its agent runs', async (t) => {
  const { tenant, initdata } = t.context
  const honest = honestPlan(tenant, initdata)
  const superblock = 1100 // EROFS keeps it at 1024; every mount reads it
  const root = withChangedByte(tenant, honest.guest.root, superblock)
  const error = await t.throwsAsync(boot(t, tenant, { ...honest, guest: { ...honest.guest, root } }), {
    instanceOf: BootError,
  })
  t.is(error?.code, 'ERR_VM_EXITED')
  t.is(error?.stage, 'kernel')
  t.regex(error?.hint ?? '', /root file ?system/)
})

test.serial('an unchanged guest attests, and the verifier says so', async (t) => {
  const { tenant, initdata } = t.context
  await attest(await boot(t, tenant, honestPlan(tenant, initdata)))
  const [record] = await tenant.admin.listAttestations({ verdict: 'accepted', limit: 1 })
  t.is(record?.tee, 'tpm')
  t.deepEqual(await tenant.releases(), [IMAGE_POLICY], 'the first thing that an attested guest asks for')
})

/** Offset of the version text in the kernel's set-up header: measured, and never executed. */
function versionStringOf(kernel: string): number {
  return readFileSync(kernel).readUInt16LE(0x20e) + 0x200
}
