import test from 'ava'
import { chooseAccelerator } from '#vmm/qemu/accelerator'

const usable = async () => ({ usable: true, reason: 'the CPU offers VMX and a tiny guest ran' })
const unusable = async () => ({ usable: false, reason: 'there is no /dev/kvm' })

test('auto takes KVM where the probe ran a guest, and else TCG with the reason', async (t) => {
  t.is((await chooseAccelerator('auto', usable)).accelerator, 'kvm')
  t.deepEqual(await chooseAccelerator('auto', unusable), { accelerator: 'tcg', reason: 'there is no /dev/kvm' })
})

test('KVM that was demanded and is not there is an error that says why', async (t) => {
  const error = await t.throwsAsync(chooseAccelerator('kvm', unusable), { code: 'ERR_KVM_UNUSABLE' })
  t.regex(error?.message ?? '', /there is no \/dev\/kvm/)
})

test('TCG that was asked for needs no probe', async (t) => {
  const chosen = await chooseAccelerator('tcg', () => Promise.reject(new Error('probed')))
  t.is(chosen.accelerator, 'tcg')
})
