"""Send an image to `attractor serve`, and print its objects as GeoJSON; nothing but Python is needed.

python segment_by_http.py "http://127.0.0.1:8765/#token=TOKEN" cells.png > cells.geojson
"""

import sys
from pathlib import Path
from urllib.request import Request, urlopen

address, path = sys.argv[1], Path(sys.argv[2])
server, token = address.split("#token=")
head = f'--part\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
body = head.encode() + path.read_bytes() + b"\r\n--part--\r\n"
headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=part"}
with urlopen(Request(f"{server}api/segment?form=geojson", body, headers)) as answer:
    sys.stdout.buffer.write(answer.read())
