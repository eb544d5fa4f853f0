package contract

import (
	"strings"
	"sync"

	"github.com/pb33f/libopenapi/datamodel"

	"github.com/weirmesh/weir/contract/schema"
)

// version is which OpenAPI a document is written in.
type version int

const (
	v30 version = iota
	v31
)

func (v version) dialect() schema.Dialect {
	if v == v30 {
		return schema.Draft4
	}
	return schema.Draft2020
}

// versionOf reads the one field that all versions have.
func versionOf(doc map[string]any) (version, string) {
	said, _ := doc["openapi"].(string)
	switch {
	case strings.HasPrefix(said, "3.0."):
		return v30, ""
	case strings.HasPrefix(said, "3.1."):
		return v31, ""
	case doc["swagger"] != nil:
		return 0, "Swagger 2.0 is not understood: convert the document to OpenAPI 3"
	case said == "":
		return 0, `"openapi" does not say the version: "3.0.3" or "3.1.0"`
	}
	return 0, "OpenAPI " + said + " is not understood: 3.0 and 3.1 are"
}

// OpenAPI's own schemas of documents.
var (
	meta30 = sync.OnceValues(func() (*schema.Meta, error) { return schema.NewMeta(datamodel.OpenAPI3SchemaData) })
	meta31 = sync.OnceValues(func() (*schema.Meta, error) { return schema.NewMeta(datamodel.OpenAPI31SchemaData) })
)

// checkShape compares a document with what OpenAPI says of documents. Within schemas
// that is left to their compiler.
func checkShape(doc map[string]any, v version) ([]schema.Problem, error) {
	meta := meta31
	if v == v30 {
		meta = meta30
	}
	m, err := meta()
	if err != nil {
		return nil, err
	}
	return m.Check(doc), nil
}
