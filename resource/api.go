package resource

import (
	"net/url"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// MaxContract bounds a Contract, which holds a document that people have written.
const MaxContract = 2 << 20

// maxBody bounds what ApiValidation.max_body_bytes may be: bodies that are checked
// are in memory.
const maxBody = 64 << 20

// maxBytes is how long a resource may be.
func maxBytes(r *weirv1.Resource) int {
	if r.GetContract() != nil {
		return MaxContract
	}
	return MaxBytes
}

// contract looks at what is around the document. What the document says is for those
// who compile it.
func (c *check) contract(spec *weirv1.ContractSpec) {
	const at = Path("spec")
	switch inline, beside := spec.GetOpenapi() != "", spec.GetOpenapiFile() != ""; {
	case inline && beside:
		c.add(at.Field("openapiFile"), "is there beside openapi: one of the two")
	case !inline && !beside:
		c.add(at.Field("openapi"), "is required: an OpenAPI document; or openapiFile, its file")
	}
}

func (c *check) api(spec *weirv1.ApiSpec) {
	const at = Path("spec")
	if n := len(spec.GetVersion()); n == 0 || n > maxVersion {
		c.add(at.Field("version"), "must have 1 to %d bytes, such as \"v1\", not %d", maxVersion, n)
	}
	if spec.GetContractRef() != nil {
		c.syntax(at.Field("contractRef").Field("name"), checkLabel(spec.GetContractRef().GetName()))
	}
	c.count(at.Field("targetRefs"), len(spec.GetTargetRefs()), 1, maxEntries, "Route to attach to")
	targets := map[string]bool{}
	for i, t := range spec.GetTargetRefs() {
		at := at.Field("targetRefs").Index(i)
		if t.GetKind() != KindRoute {
			c.add(at.Field("kind"), "an Api is Routes, not a %s", t.GetKind())
		}
		c.syntax(at.Field("name"), checkLabel(t.GetName()))
		c.optional(at.Field("sectionName"), t.GetSectionName(), checkLabel)
		c.unique(targets, at, attachment(t.GetName(), t.GetSectionName(), 0), "the target")
	}
	c.validation(at, spec)
	c.authentication(at.Field("authentication"), spec.GetAuthentication())
	c.deprecation(at.Field("deprecation"), spec)
}

// maxVersion is how long the name of a version may be.
const maxVersion = 64

func (c *check) validation(at Path, spec *weirv1.ApiSpec) {
	v := spec.GetValidation()
	if v != nil && spec.GetContractRef() == nil {
		c.add(at.Field("contractRef"), "is required for validation: there is nothing to compare with")
	}
	if v.GetMaxBodyBytes() > maxBody {
		c.add(at.Field("validation").Field("maxBodyBytes"), "must be at most %d, not %d", maxBody, v.GetMaxBodyBytes())
	}
}

func (c *check) deprecation(at Path, spec *weirv1.ApiSpec) {
	d := spec.GetDeprecation()
	switch {
	case spec.GetState() == weirv1.ApiSpec_DEPRECATED && d.GetAt() == nil:
		c.add(at.Field("at"), "is required in state DEPRECATED: since when it is so, such as \"2027-01-01T00:00:00Z\"")
	case d.GetAt() != nil && !d.GetAt().IsValid():
		c.add(at.Field("at"), "is no time between the years 1 and 9999")
	case d.GetSunset() != nil && !d.GetSunset().IsValid():
		c.add(at.Field("sunset"), "is no time between the years 1 and 9999")
	case d.GetSunset() != nil && d.GetAt() != nil && d.GetSunset().AsTime().Before(d.GetAt().AsTime()):
		c.add(at.Field("sunset"), "must not be before deprecation.at (RFC 8594, section 3; RFC 9745, section 4)")
	}
	if s := d.GetSuccessor(); s != "" {
		if u, err := url.Parse(s); err != nil || u.Host == "" && u.Path == "" || !isPrintable(s) {
			c.add(at.Field("successor"), "must be a URL, such as \"https://shop.example/v2\", not %q", s)
		}
	}
}

// isPrintable: it may stand in a field of HTTP between angle brackets, and in JSON as it is.
func isPrintable(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`<>"\`, b) >= 0 {
			return false
		}
	}
	return true
}
