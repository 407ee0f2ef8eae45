/**
 * The environment of a Node process that is started for a mount. With NODE_EXTRA_CA_CERTS, Node parses
 * those certificates before its first statement, which can take as long as all the rest of its start;
 * so the variable goes by another name until the process runs, for programs that it starts.
 */

const VARIABLE = 'NODE_EXTRA_CA_CERTS'
const MEANWHILE = 'VIRTIOFS_BRIDGE_EXTRA_CA_CERTS'

/** For the process to be started. */
export function startEnvironment(): NodeJS.ProcessEnv {
  const { [VARIABLE]: certificates, ...env } = process.env
  return certificates === undefined ? env : { ...env, [MEANWHILE]: certificates }
}

/** In the process that was started. */
export function restoreEnvironment(): void {
  const certificates = process.env[MEANWHILE]
  if (certificates === undefined) return
  process.env[VARIABLE] = certificates
  delete process.env[MEANWHILE]
}
