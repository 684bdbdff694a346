import test from 'ava'
import fc from 'fast-check'
import { parsePolicyDocument } from '#policies/document'
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
