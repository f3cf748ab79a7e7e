// Package option holds the one option that the metrics sink's set-up names.
package option

func WithUserAgent(string) any { return nil }
