import { ROLES, type Role, type TenantAdmin, type TenantSettings } from '#attestation/store/tenant-store'
import { adminKeyId } from '#attestation/verifier/admin/authenticator'
import type { TenantInfo } from '#attestation/verifier/admin/client'
import { MalformedError, UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'

export const verifierTenant: CommandSpec = {
  path: 'verifier tenant',
  summary:
    'Creates, changes, lists and removes tenants of a verifier: each has its own administrators, resources, reference\nvalues, keys, quotas and logs, below /t/NAME of the verifier’s URL. Of a tenant that is there, what is not given stays as it is.\nNeeds a key of the service’s administrators.',
  operands: 'put NAME | list | remove NAME',
  minOperands: 1,
  maxOperands: 2,
  options: {
    ...ADMIN_OPTIONS,
    admin: {
      type: 'string',
      placeholder: 'ROLE:FILE',
      multiple: true,
      help: `administrator of the tenant, in place of those before: ${ROLES.join(', ')}, and the file of the key (JWK)`,
    },
    'no-admins': { type: 'boolean', help: 'take away all administrators of the tenant' },
    'max-resources': { type: 'string', placeholder: 'N', help: 'resources that it may store' },
    'max-bytes': { type: 'string', placeholder: 'N', help: 'bytes of all its resources' },
    'requests-per-minute': { type: 'string', placeholder: 'N', help: 'requests of its guests, together' },
    'keep-attestations': { type: 'string', placeholder: 'N', help: 'attestation records that are kept' },
  },
  examples: [
    'caisson verifier tenant put shop --admin owner:shop-admin.pub.jwk --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier tenant list --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, name] = invocation.operands
      if (action === 'put' && name !== undefined) {
        await client.putTenant(name, settingsOf(invocation))
        const url = `${invocation.required('url').replace(/\/+$/, '')}/t/${name}`
        invocation.out.result({ name, url }, `${name}: ${url}`)
        return 0
      }
      if (action === 'list' && name === undefined) {
        const tenants = await client.listTenants()
        invocation.out.result(tenants, tenants.map(lineOf).join('\n'))
        return 0
      }
      if (action === 'remove' && name !== undefined) {
        await client.removeTenant(name)
        invocation.out.result({ removed: name }, `removed ${name} with everything it had`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `put NAME`, `list` or `remove NAME`', {
        hint: 'See `caisson verifier tenant --help`.',
      })
    }),
}

function lineOf(tenant: TenantInfo): string {
  const admins = tenant.admins.map(({ id, role }) => `${role} ${id}`).join(', ') || 'no administrators'
  const { maxResources, maxResourceBytes, requestsPerMinute, keepAttestations } = tenant
  const quotas = `${maxResources} resources, ${maxResourceBytes} bytes, ${requestsPerMinute} requests a minute`
  return `${tenant.name}  ${admins}  ${quotas}, ${keepAttestations} records kept`
}

function settingsOf(invocation: Invocation): Partial<TenantSettings> {
  const number = (option: string, name: keyof TenantSettings): Partial<TenantSettings> => {
    const text = invocation.string(option)
    if (text === undefined) return {}
    if (!/^\d{1,13}$/.test(text))
      throw new UsageError('ERR_USAGE', `--${option} ${JSON.stringify(text)} is not a number`, {
        hint: 'Give a whole number; leave the option out for what it was, or the default.',
      })
    return { [name]: Number(text) }
  }
  const admins = invocation.strings('admin').map(adminOf)
  const none = invocation.flag('no-admins')
  if (none && admins.length > 0) {
    throw new UsageError('ERR_USAGE', '--admin and --no-admins cannot both be meant', {
      hint: '--admin already replaces the administrators before.',
    })
  }
  return {
    ...(none || admins.length > 0 ? { admins } : {}),
    ...number('max-resources', 'maxResources'),
    ...number('max-bytes', 'maxResourceBytes'),
    ...number('requests-per-minute', 'requestsPerMinute'),
    ...number('keep-attestations', 'keepAttestations'),
  }
}

function adminOf(word: string): TenantAdmin {
  const [prefix = '', ...rest] = word.split(':')
  const role = ROLES.find((candidate): candidate is Role => candidate === prefix)
  if (role === undefined || rest.length === 0) {
    throw new UsageError('ERR_USAGE', `--admin ${JSON.stringify(word)} is not ROLE:FILE`, {
      hint: `Roles: ${ROLES.join(', ')}.`,
    })
  }
  return { key: publicKey(rest.join(':')), role }
}

/** The public half, whatever the file holds. */
function publicKey(path: string): TenantAdmin['key'] {
  const text = readUserFile(path, 'administrator’s key').toString('utf8')
  try {
    const { kty, crv, x } = JSON.parse(text)
    const key = { kty, crv, x }
    adminKeyId(key)
    return key
  } catch (cause) {
    throw new MalformedError('ERR_ADMIN_KEY', `${JSON.stringify(path)} holds no Ed25519 public key (JWK)`, {
      hint: 'Use the administrator’s `admin.key`, or its members kty, crv and x.',
      cause,
    })
  }
}
