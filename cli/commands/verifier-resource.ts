import { parseReleaseCondition } from '#attestation/verifier/release'
import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'

export const verifierResource: CommandSpec = {
  path: 'verifier resource',
  summary:
    'Stores what attested guests are given (repository/type/tag), lists and removes it. Contents never come back.',
  operands: 'put PATH FILE | list | remove PATH',
  minOperands: 1,
  maxOperands: 3,
  options: {
    ...ADMIN_OPTIONS,
    'require-image': {
      type: 'string',
      placeholder: 'DIGEST',
      multiple: true,
      help: 'release only to guests whose token names this image',
    },
  },
  examples: [
    'caisson verifier resource put default/tls/web-key web.key --require-image sha256:<digest> --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, path, file] = invocation.operands
      const images = invocation.strings('require-image')
      if (action === 'put' && path !== undefined && file !== undefined) {
        const release = parseReleaseCondition(images.length > 0 ? 'images' : 'attested', images)
        await client.putResource(path, readUserFile(file, 'resource'), release)
        invocation.out.result({ path, release }, `stored ${path}`)
        return 0
      }
      if (action === 'list' && path === undefined) {
        const list = await client.listResources()
        const lines = list.map(
          (item) => `${item.path}  ${item.sizeBytes} bytes  version ${item.version}  ${item.release.kind}`,
        )
        invocation.out.result(list, lines.join('\n'))
        return 0
      }
      if (action === 'remove' && path !== undefined && file === undefined) {
        await client.removeResource(path)
        invocation.out.result({ removed: path }, `removed ${path}`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `put PATH FILE`, `list` or `remove PATH`', {
        hint: 'See `caisson verifier resource --help`.',
      })
    }),
}
