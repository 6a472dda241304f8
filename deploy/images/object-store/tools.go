//go:build tools

// Package tools pins the object store: go.mod and go.sum fix its version and that of all it is made of.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
