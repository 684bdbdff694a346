/** The rows of the table, as far as anybody but build.mjs looks at them. */
export const targets: readonly { readonly name: string; readonly kind: string; readonly onDemand?: boolean }[]
