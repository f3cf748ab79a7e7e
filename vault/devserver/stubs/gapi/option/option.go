// Package option holds the options that the server names: the metrics sink's
// set-up one, a directory's client the other.
package option

func WithUserAgent(string) any { return nil }

func WithTokenSource(any) any { return nil }
