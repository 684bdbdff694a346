/**
 * Entry of the guest's second bundle: what judges OpenPGP signatures and sigstore bundles. Apart from the agent, so that
 * a guest whose policy asks for neither does not read a byte of it.
 */
export { signatureEngines } from '#image/node/engines'
