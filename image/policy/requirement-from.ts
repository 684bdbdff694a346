/** One requirement of a policy.json: JSON to value. Every member is known, and every combination that is senseless refused. */
import type { JsonObject, JsonValue } from '../json/strict-json.ts'
import { COSIGN_SIGNATURE } from '../signature/found.ts'
import { identityRuleFrom } from './identity-rule.ts'
import {
  atMostOneOf,
  configuredBytes,
  list,
  malformed,
  members,
  object,
  oneOf,
  optionalText,
  text,
  texts,
} from './members.ts'
import type {
  CaissonBundle,
  CaissonThreshold,
  CertificateIdentity,
  ConfiguredBytes,
  Requirement,
  SignedBy,
  SigstoreSigned,
  SigstoreSigner,
} from './policy.ts'

/** Throws `MalformedError` ERR_IMAGE_POLICY. @param place for messages: `default[0]` */
export function requirementFrom(value: JsonValue, place: string): Requirement {
  const type = text(object(value, place).type, `${place}.type`)
  switch (type) {
    case 'insecureAcceptAnything':
    case 'reject':
      members(value, place, ['type'])
      return { type }
    case 'signedBy':
      return parseSignedBy(value, place)
    case 'signedBaseLayer': {
      const given = members(value, place, ['type', 'baseLayerIdentity'])
      if (given.baseLayerIdentity === undefined) throw malformed(place, 'needs baseLayerIdentity')
      identityRuleFrom(given.baseLayerIdentity, `${place}.baseLayerIdentity`)
      return { type }
    }
    case 'sigstoreSigned':
      return parseSigstoreSigned(value, place)
    case 'caissonBundle':
      return parseBundle(value, place)
    case 'caissonThreshold':
      return parseThreshold(value, place)
    default:
      throw malformed(`${place}.type`, `unknown requirement ${JSON.stringify(type.slice(0, 100))}`)
  }
}

/** containers-policy.json names the first; the others are reserved there, and no implementation accepts an image by them. */
const KEY_TYPES: ReadonlySet<string> = new Set(['GPGKeys', 'signedByGPGKeys', 'X509Certificates', 'signedByX509CAs'])
const KEYRING_MEMBERS = ['keyPath', 'keyPaths', 'keyData'] as const

function parseSignedBy(value: JsonValue, place: string): SignedBy {
  const given = members(value, place, ['type', 'keyType', ...KEYRING_MEMBERS, 'signedIdentity'])
  const keyType = text(given.keyType, `${place}.keyType`)
  if (!KEY_TYPES.has(keyType)) throw malformed(`${place}.keyType`, `unknown: ${JSON.stringify(keyType.slice(0, 100))}`)
  return {
    type: 'signedBy',
    keyType,
    keys: configuredBytes(given, oneOf(given, place, KEYRING_MEMBERS), place),
    identity: identityRuleFrom(given.signedIdentity, `${place}.signedIdentity`),
  }
}

const KEY_MEMBERS = ['keyPath', 'keyPaths', 'keyData', 'keyDatas'] as const
const REKOR_MEMBERS = [
  'rekorPublicKeyPath',
  'rekorPublicKeyPaths',
  'rekorPublicKeyData',
  'rekorPublicKeyDatas',
] as const

function parseSigstoreSigned(value: JsonValue, place: string): SigstoreSigned {
  const given = members(value, place, ['type', ...KEY_MEMBERS, 'fulcio', 'pki', ...REKOR_MEMBERS, 'signedIdentity'])
  const by = parseSigner(given, place)
  const rekor = atMostOneOf(given, place, REKOR_MEMBERS)
  if (by.kind === 'fulcio' && rekor === undefined) {
    throw malformed(place, 'fulcio needs a rekorPublicKeyPath or rekorPublicKeyData')
  }
  if (by.kind === 'pki' && rekor !== undefined) throw malformed(place, `pki and ${rekor} exclude each other`)
  return {
    type: 'sigstoreSigned',
    by,
    rekor: rekor === undefined ? [] : configuredBytes(given, rekor, place),
    identity: identityRuleFrom(given.signedIdentity, `${place}.signedIdentity`),
  }
}

function parseSigner(given: JsonObject, place: string): SigstoreSigner {
  const name = oneOf(given, place, [...KEY_MEMBERS, 'fulcio', 'pki'])
  if (name === 'fulcio') {
    const here = `${place}.fulcio`
    const fulcio = members(given.fulcio, here, ['caPath', 'caData', 'oidcIssuer', 'subjectEmail'])
    return {
      kind: 'fulcio',
      ca: one(fulcio, here, ['caPath', 'caData']),
      oidcIssuer: text(fulcio.oidcIssuer, `${here}.oidcIssuer`),
      subjectEmail: text(fulcio.subjectEmail, `${here}.subjectEmail`),
    }
  }
  if (name === 'pki') return parsePki(given.pki, `${place}.pki`)
  return { kind: 'keys', keys: configuredBytes(given, name, place) }
}

const INTERMEDIATE_MEMBERS = ['caIntermediatesPath', 'caIntermediatesData'] as const

function parsePki(value: JsonValue | undefined, place: string): SigstoreSigner {
  const roots = ['caRootsPath', 'caRootsData'] as const
  const given = members(value, place, [...roots, ...INTERMEDIATE_MEMBERS, 'subjectHostname', 'subjectEmail'])
  const subjectHostname = optionalText(given.subjectHostname, `${place}.subjectHostname`)
  const subjectEmail = optionalText(given.subjectEmail, `${place}.subjectEmail`)
  if (subjectHostname === undefined && subjectEmail === undefined) {
    throw malformed(place, 'needs subjectHostname or subjectEmail: whom its authority certified is not enough')
  }
  const intermediates = atMostOneOf(given, place, INTERMEDIATE_MEMBERS)
  return {
    kind: 'pki',
    roots: one(given, place, roots),
    intermediates: intermediates === undefined ? undefined : one(given, place, [intermediates]),
    subjectHostname,
    subjectEmail,
  }
}

const TRUSTED_ROOT_MEMBERS = ['trustedRootPath', 'trustedRootData'] as const

function parseBundle(value: JsonValue, place: string): CaissonBundle {
  const optional = ['predicateTypes', 'builders', 'sources']
  const given = members(value, place, ['type', ...KEY_MEMBERS, 'identities', ...TRUSTED_ROOT_MEMBERS, ...optional])
  const by = oneOf(given, place, [...KEY_MEMBERS, 'identities'])
  const root = atMostOneOf(given, place, TRUSTED_ROOT_MEMBERS)
  if (by === 'identities' && root === undefined) {
    throw malformed(place, 'identities need a trustedRootPath or trustedRootData')
  }
  const textsOrNone = (name: string): readonly string[] =>
    given[name] === undefined ? [] : texts(given[name], `${place}.${name}`)
  return {
    type: 'caissonBundle',
    keys: by === 'identities' ? [] : configuredBytes(given, by, place),
    identities: by === 'identities' ? parseIdentities(given.identities, `${place}.identities`) : [],
    trustedRoot: root === undefined ? undefined : one(given, place, [root]),
    predicateTypes: given.predicateTypes === undefined ? [COSIGN_SIGNATURE] : textsOrNone('predicateTypes'),
    builders: textsOrNone('builders'),
    sources: textsOrNone('sources'),
  }
}

function parseIdentities(value: JsonValue | undefined, place: string): readonly CertificateIdentity[] {
  return list(value, place).map((item, index) => {
    const here = `${place}[${index}]`
    const given = members(item, here, ['issuer', 'subject', 'subjectPrefix'])
    oneOf(given, here, ['subject', 'subjectPrefix'])
    return {
      issuer: text(given.issuer, `${here}.issuer`),
      subject: optionalText(given.subject, `${here}.subject`),
      subjectPrefix: optionalText(given.subjectPrefix, `${here}.subjectPrefix`),
    }
  })
}

function parseThreshold(value: JsonValue, place: string): CaissonThreshold {
  const given = members(value, place, ['type', 'count', 'of'])
  const of = list(given.of, `${place}.of`).map((item, index) => {
    const here = `${place}.of[${index}]`
    const requirement = requirementFrom(item, here)
    if (
      requirement.type === 'signedBy' ||
      requirement.type === 'sigstoreSigned' ||
      requirement.type === 'caissonBundle'
    ) {
      return requirement
    }
    throw malformed(here, `${requirement.type} is not a signer`)
  })
  const { count } = given
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || count > of.length) {
    throw malformed(`${place}.count`, `must be a whole number from 1 to ${of.length}`)
  }
  return { type: 'caissonThreshold', count, of }
}

function one(given: JsonObject, place: string, names: readonly string[]): ConfiguredBytes {
  const [bytes] = configuredBytes(given, oneOf(given, place, names), place)
  if (bytes === undefined) throw malformed(place, `needs exactly one of ${names.join(', ')}`)
  return bytes
}
