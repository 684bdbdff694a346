import type { ReleaseTerms } from '#attestation/store/resource-store'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'
import { momentOf } from '../moment.ts'
import { RELEASE_OPTIONS, releaseConditionOf, releaseText } from '../release-options.ts'

/** As the verifier counts them. */
const MAX_GUESTS = 1_000_000

export const verifierResource: CommandSpec = {
  path: 'verifier resource',
  summary:
    'Stores what attested guests are given (repository/type/tag), lists and removes it. Contents never come back.',
  operands: 'put PATH FILE | list | roll-back PATH | remove PATH',
  minOperands: 1,
  maxOperands: 3,
  options: {
    ...ADMIN_OPTIONS,
    ...RELEASE_OPTIONS,
    'max-guests': {
      type: 'string',
      placeholder: 'N',
      help: 'how many guests may get it; 1 makes it a one-time secret',
    },
    'not-before': { type: 'string', placeholder: 'TIME', help: 'release from then on: a day, or 2026-01-31T12:00Z' },
    'not-after': { type: 'string', placeholder: 'TIME', help: 'release until then' },
  },
  examples: [
    'caisson verifier resource put default/tls/web-key web.key --require-image sha256:<digest> --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, path, file] = invocation.operands
      if (action === 'put' && path !== undefined && file !== undefined) {
        const release = releaseConditionOf(invocation)
        await client.putResource(path, readUserFile(file, 'resource'), release, termsOf(invocation))
        invocation.out.result({ path, release }, `stored ${path}`)
        return 0
      }
      if (action === 'list' && path === undefined) {
        const list = await client.listResources()
        const lines = list.map(
          (item) => `${item.path}  ${item.sizeBytes} bytes  version ${item.version}  ${releaseText(item.release)}`,
        )
        invocation.out.result(list, lines.join('\n'))
        return 0
      }
      if (action === 'roll-back' && path !== undefined && file === undefined) {
        await client.rollBackResource(path)
        invocation.out.result({ rolledBack: path }, `the version before is current again: ${path}`)
        return 0
      }
      if (action === 'remove' && path !== undefined && file === undefined) {
        await client.removeResource(path)
        invocation.out.result({ removed: path }, `removed ${path}`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `put PATH FILE`, `list`, `roll-back PATH` or `remove PATH`', {
        hint: 'See `caisson verifier resource --help`.',
      })
    }),
}

function termsOf(invocation: Invocation): Omit<ReleaseTerms, 'condition'> {
  const [notBefore, notAfter] = [momentOf(invocation, 'not-before'), momentOf(invocation, 'not-after')]
  return {
    ...(invocation.string('max-guests') === undefined
      ? {}
      : { maxHolders: invocation.integer('max-guests', 1, MAX_GUESTS) }),
    ...(notBefore === undefined ? {} : { notBefore }),
    ...(notAfter === undefined ? {} : { notAfter }),
  }
}
