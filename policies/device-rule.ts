/** Block devices of the host that a container asks for, and the volumes that they are. */
import { denied, listText } from './container-checks.ts'
import { absolutePath, requiredField } from './container-rule.ts'
import type { PolicyNode } from './document.ts'
import type { DeviceRequest } from './requests.ts'
import type { BlockVolumeRule, LuksVolumeRule, VolumeRule } from './volume-rule.ts'

export interface DeviceRule {
  readonly volume: BlockVolumeRule | LuksVolumeRule
  /** `devicePath` of the pod: where a `block` volume appears; what tells the disk of a `luks` volume. */
  readonly path: string
  readonly readOnly: boolean
  readonly uid: number
  readonly gid: number
}

export interface AdmittedDevice {
  readonly rule: DeviceRule
  /** The host's word for the disk. */
  readonly disk: string
}

const MAX_ID = 0xfffffffe

/** One entry of `devices`. Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line. */
export function readDeviceRule(node: PolicyNode, volumes: ReadonlyMap<string, VolumeRule>): DeviceRule {
  const fields = node.fields(['volume', 'path', 'readOnly', 'uid', 'gid'])
  const name = requiredField(fields, 'volume', node)
  const volume = volumes.get(name.string())
  if (volume === undefined || (volume.kind !== 'block' && volume.kind !== 'luks')) {
    throw name.fail('must be a volume of the kind block or luks', 'Declare it under `volumes`.')
  }
  return {
    volume,
    path: absolutePath(requiredField(fields, 'path', node)),
    readOnly: fields.get('readOnly')?.boolean() ?? false,
    uid: fields.get('uid')?.integer(0, MAX_ID) ?? 0,
    gid: fields.get('gid')?.integer(0, MAX_ID) ?? 0,
  }
}

/** Every device of the rule, and no other. Throws `DeniedError` ERR_POLICY_DENIED. */
export function checkDevices(
  rule: { readonly name: string; readonly devices: readonly DeviceRule[] },
  asked: readonly DeviceRequest[],
): readonly AdmittedDevice[] {
  const field = `containers.${rule.name}.devices`
  const paths = asked.map(({ path }) => path)
  const strange = paths.find(
    (path, index) => paths.indexOf(path) !== index || !rule.devices.some((known) => known.path === path),
  )
  if (strange !== undefined) throw denied(field, listText(rule.devices.map(({ path }) => path)), strange)
  return rule.devices.map((device) => {
    const found = asked.find(({ path }) => path === device.path)
    if (found === undefined) throw denied(field, `it with ${device.path}`, 'it without')
    return { rule: device, disk: found.disk }
  })
}
