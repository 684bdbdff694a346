import test from 'ava'
import { compileExpression } from '#attestation/appraisal/condition'
import { MalformedError } from '#protocol/errors'

const CLAIMS = {
  tee: 'snp',
  vmpl: 0,
  guest_svn: 2 ** 40,
  debug: false,
  product: 'Milan',
  tcb: { boot_loader: 4, snp: 24 },
  advisory_ids: ['INTEL-SA-00289', 'INTEL-SA-00615'],
  pcrs: { sha256: { '0': 'e1'.repeat(32) } },
  chip_id: null,
  not_a_known_claim: 1,
}

const answers: readonly [expression: string, answer: boolean][] = [
  ['vmpl == 0 && tee == "snp" && !debug', true],
  ['guest_svn > 1099511627775', true],
  ['tcb.snp >= 24 && tcb.boot_loader < 4', false],
  ['product in ["Milan", "Genoa"]', true],
  ['advisory_ids.all(id, id in ["INTEL-SA-00289", "INTEL-SA-00615"])', true],
  ['advisory_ids.exists(id, id == "INTEL-SA-00233")', false],
  ['size(advisory_ids) == 2', true],
  ['pcrs.sha256["0"].startsWith("e1e1")', true],
  ['has(tcb.fmc) && tcb.fmc > 1', false],
  ['vmpl == 0 || mrtd == "00"', true],
]
for (const [expression, answer] of answers) {
  test(`the condition ${expression} is ${answer}`, (t) => {
    t.deepEqual(compileExpression(expression)(CLAIMS), { answer })
  })
}

const unanswered: readonly [why: string, expression: string][] = [
  ['a claim that the evidence lacks', 'mrtd == "00"'],
  ['a claim that the evidence leaves open', 'chip_id == "00"'],
  ['a member that is not there', 'tcb.fmc > 0'],
  ['a member of another type', 'tcb.snp.size() > 0'],
  ['a division by zero', 'vmpl / vmpl == 1'],
  ['an answer that is neither true nor false', 'tcb.snp'],
]
for (const [why, expression] of unanswered) {
  test(`a condition on ${why} has no answer`, (t) => {
    t.true('problem' in compileExpression(expression)(CLAIMS))
  })
}

const refused: readonly [why: string, expression: string][] = [
  ['is no CEL', 'vmpl =='],
  ['is empty', ''],
  ['compares what cannot be equal', 'vmpl == "zero"'],
  ['names an unknown claim', 'not_a_known_claim == 1'],
  ['is a number', 'vmpl + 1'],
  ['has a regular expression', 'tee.matches("(a+)+$")'],
  ['has a regular expression inside a loop', 'advisory_ids.all(id, id.matches("(a+)+$"))'],
  ['has a regular expression inside a choice', 'debug ? [true].all(x, tee.matches("a")) : true'],
  ['has three loops', '[1].all(a, [1].all(b, [1].all(c, true)))'],
  ['is too long', `vmpl == 0 ${'|| vmpl == 0 '.repeat(300)}`],
  ['has too many parts', Array.from({ length: 150 }, () => 'debug').join('||')],
  ['is too deep', `${'('.repeat(60)}debug${')'.repeat(60)}`],
]
for (const [why, expression] of refused) {
  test(`a condition that ${why} is refused when the policy is read`, (t) => {
    t.throws(() => compileExpression(expression), { instanceOf: MalformedError, code: 'ERR_CONDITION' })
  })
}

test('claims named like the innards of objects answer nothing', (t) => {
  const claims = JSON.parse('{"tcb":{"__proto__":{"snp":1}},"__proto__":{"vmpl":0}}')
  t.true('problem' in compileExpression('vmpl == 0')(claims))
  t.true('problem' in compileExpression('tcb.snp == 1')(claims))
  t.true('problem' in compileExpression('tcb.constructor == 1')(claims))
})
