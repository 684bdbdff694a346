import test from 'ava'
import { foresee } from '#cli/run/foresee'
import { parsePublish } from '#cli/run/published-port'
import type { ContainerWish } from '#cli/run/run-pod'
import { DeniedError, UsageError } from '#protocol/errors'
import type { Initdata } from '#protocol/initdata'

const IMAGE = `registry.test:5000/web@sha256:${'ab'.repeat(32)}`
const INITDATA: Initdata = {
  verifier: undefined,
  registryCaPem: [],
  imagePolicyResource: undefined,
  registryCredentialsResource: undefined,
  policyYaml: `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n  - name: web\n    image: ${IMAGE}\n    ports: [443]\n`,
  tenantKeyJwk: undefined,
}
const WISH: ContainerWish = {
  image: IMAGE,
  name: '',
  args: undefined,
  env: [],
  user: '',
  terminal: false,
  stdin: false,
  hosts: [],
  publish: ['8443:443'],
}

test('what the policy will not admit is told before anything boots, with the rule', async (t) => {
  await t.notThrowsAsync(foresee(INITDATA, WISH))
  for (const [changes, field] of [
    [{ image: 'registry.test:5000/other:1' }, 'containers.image'],
    [{ env: ['A=1'] }, 'containers.web.env.A'],
    [{ args: ['sh'] }, 'containers.web.args'],
    [{ publish: ['22:22'] }, 'containers.*.ports'],
  ] as const) {
    const error = await t.throwsAsync(foresee(INITDATA, { ...WISH, ...changes }), { instanceOf: DeniedError })
    t.is(error?.field, field)
  }
  const elsewhere = {
    ...INITDATA,
    policyYaml: INITDATA.policyYaml.replace('containers:', 'dns: [192.0.2.1]\ncontainers:'),
  }
  const error = await t.throwsAsync(foresee(elsewhere, WISH), { instanceOf: DeniedError })
  t.is(error?.field, 'dns')
})

test('a published port listens on the loopback interface unless an address is given', (t) => {
  t.deepEqual(parsePublish('8443:443'), { listen: '127.0.0.1:8443', port: 443 })
  t.deepEqual(parsePublish('0.0.0.0:0:443'), { listen: '0.0.0.0:0', port: 443 })
  t.deepEqual(parsePublish('[::1]:8443:443'), { listen: '[::1]:8443', port: 443 })
  for (const text of ['443', '8443:0', '70000:443', '8443:443:1', 'host:8443:443', '']) {
    t.throws(() => parsePublish(text), { instanceOf: UsageError, code: 'ERR_USAGE' })
  }
})
