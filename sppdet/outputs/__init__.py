"""What the commands write: results line by line, documents, annotations, drawings, crops."""
