package ship

import (
	"encoding/json"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/spool"
)

// CutState is the name under which the spool keeps the last cut.
const CutState = cutState

// DescribeCut reads a cut that was written down: its records, and the place
// where it begins. It is open while the spool's cursor stands there.
func DescribeCut(data []byte) (clickhouse.Range, spool.Cursor, error) {
	var c cut
	if err := json.Unmarshal(data, &c); err != nil {
		return clickhouse.Range{}, spool.Cursor{}, err
	}
	return c.span(), c.Start, nil
}
