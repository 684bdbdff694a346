import test from 'ava'
import fc from 'fast-check'
import { parsePolicyDocument } from '#policies/document'
import { parsePinned } from '#policies/image-rule'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('a document is read without anchors, aliases and tags, or refused', (t) => {
  const good = 'version: 1\ncontainers:\n  - image: a\n    command: ["x", "y"]\n'
  const parts = fc.constantFrom(
    'a',
    ': ',
    '\n',
    '- ',
    '&a',
    '*a',
    '!!str',
    '[',
    ']',
    '{',
    '}',
    '"',
    '#',
    '  ',
    '|',
    '---',
  )
  const inputs = fc.oneof(
    damaged(good),
    fc.array(parts).map((words) => words.join('')),
  )
  refusesOrKeeps(t, inputs, parsePolicyDocument)
})

test('nesting that would exhaust the stack is refused', (t) => {
  for (const opening of ['[', '{a: ', '? ']) {
    t.throws(() => parsePolicyDocument(opening.repeat(2_000)), { code: 'ERR_POLICY_MALFORMED' })
  }
})

test('a pinned reference has a repository and a whole digest, or is none', (t) => {
  const pinned = `registry.test:5000/team/app@sha256:${'a'.repeat(64)}`
  t.deepEqual(parsePinned(pinned), { repository: 'registry.test:5000/team/app', digest: `sha256:${'a'.repeat(64)}` })
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => pinned + text),
        fc.string().map((text) => text + pinned),
      ),
      (text) => {
        const found = parsePinned(text)
        return found === undefined || (text.startsWith(found.repository) && text.endsWith(`@${found.digest}`))
      },
    ),
  )
})
