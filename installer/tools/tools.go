// Package tools is a module of its own for the programs that check and package
// this repository, so that what they depend on is no dependency of the product.
package tools
