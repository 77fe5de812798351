"""Reports for people: one self-contained HTML file for a lane or for a run. It knows no step."""
