// Package yamlfile reads YAML strictly and remembers where everything stood.
//
// People write YAML by hand, so a mistake must be found and shown, never
// guessed away: [Parse] takes one document of a bounded size and refuses
// aliases, anchors, merge keys, tags and duplicate keys; [Document.Decode]
// fills a Go struct and refuses keys that it does not know. Every mistake is
// reported at once, each with its file, line and column. A value that is
// syntactically fine and wrong for another reason can be reported at its place
// too: [Document.Problem].
//
// [Append] and [Apply] change a file and leave everything else of it as it was,
// comments included. [Schema] describes to an editor what Decode accepts.
//
// It is the only package that imports yaml.v3, which is frozen upstream.
package yamlfile
