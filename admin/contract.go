package admin

import (
	"fmt"

	"github.com/weirmesh/weir/contract"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// tryContracts compiles the documents that Contracts are put with, before a proxy
// does, unless they are stored as they are.
func (s *service) tryContracts(puts []*weirv1.Resource, index func(resource.Ref) resource.Path) error {
	var violations []Violation
	for _, r := range puts {
		spec := r.GetContract().GetSpec()
		if spec == nil {
			continue
		}
		if spec.GetOpenapiFile() != "" {
			violations = append(violations, Violation{Ref: resource.Of(r), Field: "spec.openapiFile", Reason: ReasonInvalid,
				Message: "is for files, beside which the command line reads it: send the document in openapi"})
			continue
		}
		text := spec.GetOpenapi()
		stored, _ := s.Store.View().Get(resource.Of(r))
		if stored.GetContract().GetSpec().GetOpenapi() == text {
			continue
		}
		for _, p := range contract.Check([]byte(text)) {
			violations = append(violations, Violation{Ref: resource.Of(r), Field: "spec.openapi", Reason: ReasonInvalid, Message: fmt.Sprintf("is refused: %s", p)})
		}
	}
	if len(violations) > 0 {
		return refusal(&Refused{Violations: violations}, index)
	}
	return nil
}
