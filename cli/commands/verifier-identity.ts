import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { RELEASE_OPTIONS, releaseConditionOf, releaseText } from '../release-options.ts'

export const verifierIdentity: CommandSpec = {
  path: 'verifier identity',
  summary:
    'Says what names guests may have in certificates: short-lived ones, for keys that attested guests made themselves.\nCertificates that were issued count until they expire.',
  operands: 'put ID | list | remove ID',
  minOperands: 1,
  maxOperands: 2,
  options: {
    ...ADMIN_OPTIONS,
    name: { type: 'string', placeholder: 'DNS-NAME', multiple: true, help: 'name that may be asked for' },
    ...RELEASE_OPTIONS,
  },
  examples: [
    'caisson verifier identity put web --name web.shop.example --require-image sha256:<digest> --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, id] = invocation.operands
      const names = invocation.strings('name')
      if (action === 'put' && id !== undefined && names.length > 0) {
        const release = releaseConditionOf(invocation)
        await client.putIdentity(id, names, release)
        invocation.out.result({ id, names, release }, `guests may be ${names.join(', ')}`)
        return 0
      }
      if (action === 'list' && id === undefined) {
        const list = await client.listIdentities()
        const lines = list.map((grant) => `${grant.id}  ${grant.names.join(', ')}  ${releaseText(grant.release)}`)
        invocation.out.result(list, lines.length > 0 ? lines.join('\n') : 'no guest gets a certificate')
        return 0
      }
      if (action === 'remove' && id !== undefined) {
        await client.removeIdentity(id)
        invocation.out.result({ removed: id }, `removed ${id}: no further certificates`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `put ID --name DNS-NAME`, `list` or `remove ID`', {
        hint: 'See `caisson verifier identity --help`.',
      })
    }),
}
