import test from 'ava'
import fc from 'fast-check'
import { parseReferenceId } from '#attestation/store/reference-store'
import { parseReleaseCondition } from '#attestation/store/release-condition'
import { parseResourcePath } from '#attestation/store/resource-store'
import { parseTpmReference } from '#attestation/verifier/tpm-evidence'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('the name of reference values leaves no room for paths or escapes', (t) => {
  refusesOrKeeps(
    t,
    damaged('guest-1.2_a'),
    parseReferenceId,
    (value, input) => value === input && /^[\w.-]{1,128}$/.test(value) && !value.startsWith('.'),
  )
})

test('a path of a resource has three segments, none of which leads elsewhere', (t) => {
  const segment = fc.oneof(damaged('type'), fc.constantFrom('..', '.', '', 'a/b', '%2e%2e'))
  refusesOrKeeps(t, fc.array(segment, { maxLength: 4 }), parseResourcePath, (value) => {
    const parts = value.split('/')
    return parts.length === 3 && parts.every((part) => part !== '' && !part.startsWith('.'))
  })
})

test('a release condition names known kinds and digests only', (t) => {
  const inputs = fc.tuple(
    fc.oneof(fc.constantFrom('attested', 'images'), fc.string()),
    fc.array(damaged(`sha256:${'a'.repeat(64)}`), { maxLength: 3 }),
  )
  refusesOrKeeps(
    t,
    inputs,
    ([kind, manifests]) => parseReleaseCondition(kind, manifests),
    (value, [kind]) =>
      value.kind === kind &&
      (value.kind === 'attested' || value.manifests.every((each) => /^sha256:[0-9a-f]{64}$/.test(each))),
  )
})

test('reference values of a TPM guest are a document with a name, or refused', (t) => {
  refusesOrKeeps(t, damaged('{"id":"a"}'), parseTpmReference, ({ id }) => id !== '')
})
