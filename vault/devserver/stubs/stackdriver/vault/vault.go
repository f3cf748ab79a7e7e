// Package vault holds the two names the server hands to the sink beside it.
package vault

var Extractor, Bucketer any
