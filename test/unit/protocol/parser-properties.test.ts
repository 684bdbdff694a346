import test from 'ava'
import fc from 'fast-check'
import { JsonFields } from '#protocol/json-fields'
import { KBS_VERSIONS, parseKbsVersion } from '#protocol/kbs-messages'
import { parseAnnotations, parseDescriptor, parseMediaType } from '#protocol/oci/descriptor'
import { isDigest, parseDigest } from '#protocol/oci/digest'
import { parseTeePublicKey, teePublicKeyJson } from '#protocol/tee-public-key'
import {
  admittedImageJson,
  parseAdmittedImage,
  parseTpmChallenge,
  parseTpmRequest,
  tpmChallengeJson,
  tpmRequestJson,
} from '#protocol/tpm-messages'
import { altered, damaged, refusesOrKeeps } from '../parser-property.ts'

const digest = `sha256:${'a'.repeat(64)}`
const fieldsOf = (value: unknown) => new JsonFields(value, 'message', 'ERR_KBS_MESSAGE')
const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)

test('a digest is taken as it stands, or refused', (t) => {
  const inputs = fc.oneof(damaged(digest), fc.jsonValue())
  refusesOrKeeps(
    t,
    inputs,
    (input) => parseDigest(input, 'x'),
    (value, input) => value === input && isDigest(value),
  )
})

test('a descriptor has a digest, a media type and a size that can be counted, or is refused', (t) => {
  const good = { mediaType: 'application/x', digest, size: 7, annotations: { a: 'b' }, platform: {} }
  refusesOrKeeps(
    t,
    altered(good),
    (input) => parseDescriptor(input, 'x'),
    (value) => isDigest(value.digest) && Number.isSafeInteger(value.size) && value.size >= 0,
  )
})

test('a media type is taken as it stands, or refused', (t) => {
  const inputs = fc.oneof(damaged('application/vnd.oci.image.layer.v1.tar+gzip'), fc.jsonValue())
  refusesOrKeeps(
    t,
    inputs,
    (input) => parseMediaType(input, 'x'),
    (value, input) => value === input && !/\s/.test(value),
  )
})

test('annotations are texts by name, or refused', (t) => {
  refusesOrKeeps(
    t,
    altered({ a: 'b', c: '' }),
    (input) => parseAnnotations(input, 'x'),
    (value, input) => same([...value], Object.entries(input ?? {})),
  )
})

test('a version of the protocol is a known one, or refused', (t) => {
  refusesOrKeeps(t, damaged('0.4.0'), parseKbsVersion, (value) => KBS_VERSIONS.includes(value))
})

const coordinate = Buffer.alloc(32, 7).toString('base64url')

test('a key that is taken is sent on as it was, without what else came along', (t) => {
  const good = { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: coordinate, y: coordinate }
  refusesOrKeeps(
    t,
    altered(good),
    (input) => parseTeePublicKey(fieldsOf(input)),
    (value) => same(parseTeePublicKey(fieldsOf(teePublicKeyJson(value))), value),
  )
})

test('a TPM’s request that is taken survives being written and read', (t) => {
  refusesOrKeeps(
    t,
    altered({ 'ek-certificate': 'AAAA', 'ak-public': 'AQID' }),
    (input) => parseTpmRequest(fieldsOf(input)),
    (value) => same(parseTpmRequest(fieldsOf(tpmRequestJson(value))), value),
  )
})

test('a challenge to a TPM that is taken asks for registers in ascending order', (t) => {
  const selection = fc.record({ bank: fc.constantFrom('sha256', 'sha1'), pcrs: fc.array(fc.integer({ max: 30 })) })
  const good = { 'credential-blob': 'AAAA', 'encrypted-secret': 'AQID', 'pcr-selection': { bank: 'sha256', pcrs: [0] } }
  const inputs = fc.oneof(
    altered(good),
    selection.map((chosen) => ({ ...good, 'pcr-selection': chosen })),
  )
  refusesOrKeeps(
    t,
    inputs,
    (input) => parseTpmChallenge(fieldsOf(input)),
    (value) => {
      const { pcrs } = value.pcrSelection
      const ascending = pcrs.every(
        (pcr, index) => pcr >= 0 && pcr < 24 && (index === 0 || pcr > (pcrs[index - 1] ?? 0)),
      )
      return ascending && same(parseTpmChallenge(fieldsOf(tpmChallengeJson(value))), value)
    },
  )
})

test('an admitted image that is taken survives being written and read', (t) => {
  refusesOrKeeps(
    t,
    altered({ container: 'web', manifest: digest, config: digest, diff_ids: [digest] }),
    (input) => parseAdmittedImage(fieldsOf(input)),
    (value) => same(parseAdmittedImage(fieldsOf(admittedImageJson(value))), value),
  )
})
