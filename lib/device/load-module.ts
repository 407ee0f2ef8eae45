/**
 * Loads the module that a thread was told to serve. Nobody else imports by URL: in the command's
 * bundle (bundle.js) modules of this package come from the bundle, which must hold each once.
 */

/** @param url of a compiled module @throws what the module throws, or that there is none */
export async function loadModule<Module>(url: string): Promise<Module> {
  return await import(url) as Module
}
